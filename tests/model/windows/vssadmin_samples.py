"""Outputs of `vssadmin list writers` as guests print them: five lines per writer, CRLF, an OEM code page.

English and German are published, French is as posted by a user; Japanese and Polish have the same shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass

TASKS = ("Task Scheduler Writer", "d61d61c8-d73a-4eee-8cdd-f6f9786b7124", "1bddd48e-5052-49db-9b07-b96f96727e6b")
SYSTEM = ("System Writer", "e8132975-6f93-4464-a53e-1050253ae220", "88b2d21c-df81-4f79-a241-e669561c531c")
REGISTRY = ("Registry Writer", "afbab4a2-367d-4d15-a586-71dbb18f8485", "a8b2ab1f-7d4b-4b1a-9d2c-0f5d8c7e6b5a")
WMI = ("WMI Writer", "a6ad56c2-b509-4e6c-bb19-49d8f43532f0", "5c1a2d3e-4f50-4617-8293-a4b5c6d7e8f9")
BITS = ("BITS Writer", "4969d978-be47-48b0-b100-f328f07ac1e0", "6a1b2c3d-4e5f-4061-8728-39405a6b7c8d")
SQL = ("SqlServerWriter", "a65faa63-5ea8-4ebc-9dbd-a0c4db26912a", "0c5c2f6e-7a51-4f0e-9a3b-6d2f5f6b8e11")
EXCHANGE = ("Microsoft Exchange Writer", "76fe1ac4-15f7-4bcd-987e-8e1acb462fb7", "7d8e9f00-1122-4334-8556-677889900aab")
THIRD_PARTY = ("Acme Ledger Writer", "11111111-2222-4333-8444-555555555555", "99999999-8888-4777-8666-555555555555")

Identity = tuple[str, str, str]


@dataclass(frozen=True)
class Language:
    code_page: str
    banner: str
    name: str
    class_id: str
    instance_id: str
    state: str
    error: str
    quote: str
    states: dict[int, str]
    no_error: str
    timed_out: str
    retryable: str


ENGLISH = Language(
    "cp437", "vssadmin 1.1 - Volume Shadow Copy Service administrative command-line tool",
    "Writer name: ", "Writer Id: ", "Writer Instance Id: ", "State: ", "Last error: ", "''",
    {1: "Stable", 5: "Waiting for completion", 9: "Failed"}, "No error", "Timed out", "Retryable error",
)  # fmt: skip
GERMAN = Language(
    "cp850", "vssadmin 1.1 - Verwaltungsbefehlszeilenprogramm des Volumeschattenkopie-Dienstes",
    "Verfassername: ", "Verfasserkennung: ", "Verfasserinstanzkennung: ", "Status: ", "Letzter Fehler: ", '""',
    {1: "Stabil", 5: "Warten auf Abschluss", 9: "Fehlgeschlagen"}, "Kein Fehler", "Zeitüberschreitung", "Wiederholbarer Fehler",
)  # fmt: skip
FRENCH = Language(
    "cp850", "vssadmin 1.1 - Outil ligne de commande d'administration du service de cliché instantané de volume",
    "Nom du rédacteur : ", "ID du rédacteur : ", "ID de l'instance du rédacteur : ", "État : ", "Dernière erreur : ", "''",
    {1: "Stable", 5: "En attente de la conclusion", 9: "Échec"}, "Aucune erreur", "Délai dépassé", "Erreur récupérable",
)  # fmt: skip
JAPANESE = Language(
    "cp932", "vssadmin 1.1 - ボリューム シャドウ コピー サービス管理コマンド ライン ツール",
    "ライター名: ", "ライター ID: ", "ライター インスタンス ID: ", "状態: ", "最後のエラー： ", "''",
    {1: "安定", 5: "完了待ち", 9: "失敗"}, "エラーなし", "タイムアウト", "再試行可能なエラー",
)  # fmt: skip
POLISH = Language(
    "cp852", "vssadmin 1.1 - Narzędzie wiersza polecenia do administrowania usługą kopiowania woluminów w tle",
    "Nazwa modułu zapisującego: ", "Identyfikator modułu zapisującego: ", "Identyfikator wystąpienia modułu zapisującego: ",
    "Stan: ", "Ostatni błąd: ", "''",
    {1: "Stabilny", 5: "Oczekiwanie na ukończenie", 9: "Niepowodzenie"},
    "Brak błędu", "Upłynął limit czasu", "Błąd z możliwością ponowienia",
)  # fmt: skip
#: Nobody's table has it.
ESPERANTO = Language(
    "utf-8", "vssadmin 1.1 - Administrilo de la servo de ombrokopioj", "Nomo de la skribilo： ", "Klaso： ", "Instanco： ",
    "Stato： ", "Lasta eraro： ", "«»", {1: "Stabila", 5: "Atendas", 9: "Malsukcesis"}, "Neniu eraro", "Tro malfrue", "Reprovebla eraro",
)  # fmt: skip

LANGUAGES = {
    "english": ENGLISH, "german": GERMAN, "french": FRENCH, "japanese": JAPANESE, "polish": POLISH, "esperanto": ESPERANTO,
}  # fmt: skip


def block(language: Language, who: Identity, state: int, error: str) -> str:
    text = language.states.get(state, language.states[9])
    return (
        f"{language.name}{language.quote[0]}{who[0]}{language.quote[1]}\r\n"
        f"   {language.class_id}{{{who[1]}}}\r\n"
        f"   {language.instance_id}{{{who[2]}}}\r\n"
        f"   {language.state}[{state}] {text}\r\n"
        f"   {language.error}{error}\r\n\r\n"
    )


def text_of(language: Language, writers: Sequence[tuple[Identity, int, str]]) -> str:
    head = f"{language.banner}\r\n(C) Copyright 2001-2013 Microsoft Corp.\r\n\r\n"
    return head + "".join(block(language, who, state, error) for who, state, error in writers)


def output_of(language: Language, writers: Sequence[tuple[Identity, int, str]]) -> bytes:
    return text_of(language, writers).encode(language.code_page)


def english(*writers: tuple[Identity, int, str]) -> bytes:
    return output_of(ENGLISH, writers)


def well(*who: Identity) -> list[tuple[Identity, int, str]]:
    return [(each, 1, "No error") for each in who]


PUBLISHED_FAILED_AT_FREEZE = (
    b"vssadmin 1.1 - Volume Shadow Copy Service administrative command-line tool\r\n"
    b"(C) Copyright 2001-2013 Microsoft Corp.\r\n\r\n"
    b"Writer name: 'Task Scheduler Writer'\r\n"
    b"   Writer Id: {d61d61c8-d73a-4eee-8cdd-f6f9786b7124}\r\n"
    b"   Writer Instance Id: {1bddd48e-5052-49db-9b07-b96f96727e6b}\r\n"
    b"   State: [1] Stable\r\n"
    b"   Last error: No error\r\n\r\n"
    b"Writer name: 'SqlServerWriter'\r\n"
    b"   Writer Id: {a65faa63-5ea8-4ebc-9dbd-a0c4db26912a}\r\n"
    b"   Writer Instance Id: {0c5c2f6e-7a51-4f0e-9a3b-6d2f5f6b8e11}\r\n"
    b"   State: [9] Failed\r\n"
    b"   Last error: Timed out\r\n\r\n"
)

PUBLISHED_GERMAN_BLOCK = (
    b'Verfassername: "SqlServerWriter"\r\n'
    b"   Verfasserkennung: {a65faa63-5ea8-4ebc-9dbd-a0c4db26912a}\r\n"
    b"   Verfasserinstanzkennung: {0c5c2f6e-7a51-4f0e-9a3b-6d2f5f6b8e11}\r\n"
    b"   Status: [8] Fehlgeschlagen\r\n"
    b"   Letzter Fehler: Wiederholbarer Fehler\r\n\r\n"
)
