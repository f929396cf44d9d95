"""What `vssadmin list writers` says in the last-error line, in the languages that are known.

German is published, French is from a posted output and from the program's own string table, Polish "Nie ma błędów" was reported
from a guest; the others are in the same shape and unconfirmed. A text that is not here is never guessed: F§5.3 has the rule for it.
"""

import re
import unicodedata
from enum import StrEnum


class WriterError(StrEnum):
    """Microsoft's writer failures (F§5.2)."""

    inconsistent_snapshot = "inconsistent_snapshot"
    out_of_resources = "out_of_resources"
    timed_out = "timed_out"
    retryable = "retryable"
    non_retryable = "non_retryable"
    not_responding = "not_responding"
    unexpected = "unexpected"


TRANSIENT = frozenset({WriterError.out_of_resources, WriterError.timed_out, WriterError.retryable})
"""Microsoft: wait ten minutes and repeat, up to three times (F§5.2)."""

NO_ERROR = frozenset(
    {
        "no error", "kein fehler", "aucune erreur", "sin errores", "sin error", "ningún error", "nessun errore",
        "nenhum erro", "sem erros", "sem erro", "não há erros", "nie ma błędów", "brak błędu", "brak błędów", "geen fout", "geen fouten",
        "нет ошибок", "нет ошибки", "ошибок нет", "inget fel", "ingen fejl", "ingen feil", "ei virhettä", "žádná chyba",
        "bez chyby", "nincs hiba", "hata yok", "エラーなし", "エラー なし", "エラーはありません", "没有错误", "无错误",
        "沒有錯誤", "無錯誤", "오류 없음", "오류가 없습니다",
    }
)  # fmt: skip

_ERRORS = {
    WriterError.inconsistent_snapshot: (
        "inconsistent shadow copy", "inkonsistente schattenkopie", "cliché instantané incohérent", "niespójna kopia w tle",
        "シャドウ コピーが不整合です", "instantánea incoherente",
    ),
    WriterError.out_of_resources: (
        "out of resources", "nicht genügend ressourcen", "ressources insuffisantes", "za mało zasobów", "brak zasobów",
        "リソース不足", "リソースが不足しています", "sin recursos",
    ),
    WriterError.timed_out: (
        "timed out", "zeitüberschreitung", "zeitlimit überschritten", "délai dépassé", "upłynął limit czasu",
        "przekroczono limit czasu", "タイムアウト", "タイムアウトしました", "tiempo de espera agotado", "timeout",
    ),
    WriterError.retryable: (
        "retryable error", "wiederholbarer fehler", "erreur récupérable", "błąd umożliwiający ponowienie próby",
        "błąd z możliwością ponowienia", "再試行可能なエラー", "再試行可能なエラーです", "error recuperable", "errore non irreversibile",
    ),
    WriterError.non_retryable: (
        "non-retryable error", "nicht wiederholbarer fehler", "erreur non récupérable", "błąd uniemożliwiający ponowienie próby",
        "再試行不可能なエラー", "再試行できないエラー", "error no recuperable", "errore irreversibile",
    ),
    WriterError.not_responding: ("not responding", "keine antwort", "pas de réponse", "nie odpowiada", "応答なし"),
    WriterError.unexpected: ("unexpected error", "unerwarteter fehler", "erreur inattendue", "nieoczekiwany błąd", "予期しないエラー"),
}  # fmt: skip

_CODES = {
    0x800423F0: WriterError.inconsistent_snapshot,
    0x800423F1: WriterError.out_of_resources,
    0x800423F2: WriterError.timed_out,
    0x800423F3: WriterError.retryable,
    0x800423F4: WriterError.non_retryable,
    0x80042319: WriterError.not_responding,
}

_BY_TEXT = {text: error for error, texts in _ERRORS.items() for text in texts}
KNOWN_TEXTS = NO_ERROR | _BY_TEXT.keys()
_CODE = re.compile(r"0x(8[0-9a-f]{7})", re.IGNORECASE)


def says_no_error(text: str) -> bool:
    return normalised(text) in NO_ERROR


def error_in(text: str) -> WriterError | None:
    """The failure that a last-error text names, by its words or by a code in it. None: the text is not known."""
    code = _CODE.search(text)
    if code is not None:
        return _CODES.get(int(code[1], 16), WriterError.unexpected)
    return _BY_TEXT.get(normalised(text))


def normalised(text: str) -> str:
    """Texts compare without regard to case, spacing (of whatever kind), half or full width, and a final stop."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .。")
