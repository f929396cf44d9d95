"""What Windows says in which language, and the OEM code page that it says it in.

English and German labels are as published, French states and errors as in vssadmin's own message table. The French labels, the rarer
words, all of Japanese and most of Polish are near to what is seen there but not verified letter by letter: a parser must not need them.
Polish "Stabilne" and "Nie ma błędów." were reported from a guest.
"""

from dataclasses import dataclass
from typing import Literal

LanguageName = Literal["en", "de", "fr", "ja", "pl"]
LastError = Literal[
    "no_error",
    "retryable",
    "non_retryable",
    "timed_out",
    "inconsistent_shadow_copy",
    "out_of_resources",
    "unexpected",
    "not_responding",
]
ERRORS: tuple[LastError, ...] = (
    "no_error",
    "retryable",
    "non_retryable",
    "timed_out",
    "inconsistent_shadow_copy",
    "out_of_resources",
    "unexpected",
    "not_responding",
)


@dataclass(frozen=True)
class Language:
    code_page: str
    tool: str
    labels: tuple[str, str, str, str, str]
    """Name, class id, instance id, state and last error, with all that stands before the value."""
    quote: str
    states: tuple[str, str, str, str, str, str, str]
    """0 to 5, then failed."""
    errors: tuple[str, ...]
    """In the order of ERRORS."""
    waiting: tuple[str, str]
    unspecified_error: str
    """FormatMessage of E_FAIL."""
    no_registry_value: str

    def state(self, number: int) -> str:
        return self.states[min(max(number, 0), 6)]

    def last_error(self, error: LastError) -> str:
        return self.errors[ERRORS.index(error)]


LANGUAGES: dict[LanguageName, Language] = {
    "en": Language(
        "cp437",
        "vssadmin 1.1 - Volume Shadow Copy Service administrative command-line tool",
        ("Writer name: ", "Writer Id: ", "Writer Instance Id: ", "State: ", "Last error: "),
        "'",
        ("Unknown", "Stable", "Waiting for freeze", "Frozen", "Waiting for shadow copies", "Waiting for completion", "Failed"),
        (
            *("No error", "Retryable error", "Non-retryable error", "Timed out"),
            *("Inconsistent shadow copy", "Out of resources", "Unexpected error", "Not responding"),
        ),
        ("Waiting for responses.", "These may be delayed if a shadow copy is being prepared."),
        "Unspecified error",
        "ERROR: The system was unable to find the specified registry key or value.",
    ),
    "de": Language(
        "cp850",
        "vssadmin 1.1 - Verwaltungsbefehlszeilenprogramm des Volumeschattenkopie-Dienstes",
        ("Verfassername: ", "Verfasserkennung: ", "Verfasserinstanzkennung: ", "Status: ", "Letzter Fehler: "),
        '"',
        (
            *("Unbekannt", "Stabil", "Warten auf Fixierung", "Fixiert", "Warten auf Schattenkopien"),
            *("Warten auf Abschluss", "Fehlgeschlagen"),
        ),
        (
            *("Kein Fehler", "Wiederholbarer Fehler", "Nicht wiederholbarer Fehler", "Zeitüberschreitung"),
            *("Inkonsistente Schattenkopie", "Nicht genügend Ressourcen", "Unerwarteter Fehler", "Keine Rückmeldung"),
        ),
        ("Auf Antworten wird gewartet.", "Diese können sich verzögern, wenn eine Schattenkopie vorbereitet wird."),
        "Unbekannter Fehler",
        "FEHLER: Der angegebene Registrierungsschlüssel bzw. Wert wurde nicht gefunden.",
    ),
    "fr": Language(
        "cp850",
        "vssadmin 1.1 - Outil ligne de commande d'administration du service de cliché instantané de volume",
        ("Nom du rédacteur : ", "ID du rédacteur : ", "ID d'instance du rédacteur : ", "État : ", "Dernière erreur : "),
        "'",
        (
            *("Inconnu", "Stable", "En attente pour figer", "Gelé", "Attente de la fin des clichés instantanés"),
            *("En attente de la conclusion", "Échec"),
        ),
        (
            *("Aucune erreur", "Erreur récupérable", "Erreur non récupérable", "Délai dépassé"),
            *("Cliché instantané incohérent", "Ressources insuffisantes", "Erreur inattendue", "Pas de réponse"),
        ),
        ("En attente de réponses.", "Celles-ci peuvent être retardées si un cliché instantané est en cours de préparation."),
        "Erreur non spécifiée",
        "ERREUR : le système n'a pas trouvé la clé ou la valeur de Registre spécifiée.",
    ),
    "ja": Language(
        "cp932",
        "vssadmin 1.1 - ボリューム シャドウ コピー サービス管理コマンド ライン ツール",
        ("ライター名: ", "ライター ID: ", "ライター インスタンス ID: ", "状態: ", "最後のエラー: "),
        "'",
        ("不明", "安定", "フリーズを待機中", "フリーズ", "シャドウ コピーの完了を待機中", "完了を待機中", "失敗"),
        (
            *("エラーなし", "再試行可能なエラー", "再試行不可能なエラー", "タイムアウト"),
            *("矛盾したシャドウ コピー", "リソース不足", "予期しないエラー", "応答なし"),
        ),
        ("応答を待っています。", "シャドウ コピーの準備中は、応答が遅れることがあります。"),
        "エラーを特定できません",
        "エラー: 指定されたレジストリ キーまたは値が見つかりませんでした。",
    ),
    "pl": Language(
        "cp852",
        "vssadmin 1.1 - narzędzie wiersza polecenia do administracji usługą kopiowania woluminów w tle",
        (
            *("Nazwa składnika zapisywania: ", "Identyfikator składnika zapisywania: "),
            *("Identyfikator wystąpienia składnika zapisywania: ", "Stan: ", "Ostatni błąd: "),
        ),
        "'",
        (
            *("Nieznany", "Stabilne", "Oczekiwanie na zamrożenie", "Zamrożony", "Oczekiwanie na kopie w tle"),
            *("Oczekiwanie na zakończenie", "Niepowodzenie"),
        ),
        (
            *("Nie ma błędów.", "Błąd umożliwiający ponowienie", "Błąd uniemożliwiający ponowienie", "Upłynął limit czasu"),
            *("Niespójna kopia w tle", "Brak zasobów", "Nieoczekiwany błąd", "Brak odpowiedzi"),
        ),
        ("Oczekiwanie na odpowiedzi.", "Mogą się opóźnić, jeśli kopia w tle jest przygotowywana."),
        "Nieokreślony błąd",
        "BŁĄD: System nie mógł odnaleźć określonego klucza rejestru lub wartości.",
    ),
}
