"""Bytes in a code page that nobody names become the text that was meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.windows.oem_text import CODE_PAGES, decode

pytestmark = pytest.mark.windows

SENTENCES = [
    ("utf-8", "Dernière erreur : aucune – エラーなし"),
    ("cp850", "Letzter Fehler: Zeitüberschreitung für die Schattenkopie"),
    ("cp850", "État : [9] Échec\r\nDernière erreur : Délai dépassé"),
    ("cp850", "Último erro: Não há erros de gravação"),
    ("cp852", "Ostatni błąd: Brak błędu\r\nIdentyfikator wystąpienia składnika zapisywania"),
    ("cp852", "Název zapisovače\r\nPoslední chyba: Žádná chyba"),
    ("cp866", "Имя компонента записи\r\nПоследняя ошибка: Нет ошибок"),
    ("cp737", "Κατάσταση: Σταθερή\r\nΤελευταίο σφάλμα: Κανένα"),
    ("cp932", "状態: [1] 安定\r\n最後のエラー: エラーなし"),
    ("cp936", "编写器名称：“x”\r\n上一个错误: 没有错误"),
    ("cp950", "寫入器名稱: 'x'\r\n上次錯誤: 沒有錯誤"),
    ("cp1252", "État : Dernière rédacteur"),
]


@pytest.mark.parametrize(("code_page", "text"), SENTENCES)
def test_a_sentence_reads_as_it_was_written(code_page: str, text: str) -> None:
    assert decode(text.encode(code_page)).text == text


def test_an_expected_phrase_decides_where_two_readings_look_alike() -> None:
    korean = "마지막 오류: 오류 없음"
    assert decode(korean.encode("cp949"), expected={"오류 없음"}).text == korean


def test_the_code_page_of_an_earlier_output_is_taken_again_when_it_fits() -> None:
    turkish = "Yazıcı adı: Kararlı"
    assert decode(turkish.encode("cp857"), hint="cp857").text == turkish
    assert decode(b"plain", hint="cp857").encoding == "utf-8"
    assert decode("État".encode("cp850"), hint="no such code page").text == "État"


def test_a_byte_order_mark_is_believed() -> None:
    assert decode("\ufeffÉtat".encode("utf-16-le")).text == "État"
    assert decode("État".encode("utf-8-sig")).text == "État"


def test_nul_is_replaced_because_databases_refuse_it() -> None:
    assert decode(b"a\x00b").text == "a\ufffdb"


def test_a_late_byte_that_does_not_fit_costs_one_character() -> None:
    text = decode("状態".encode("cp932") * 40_000 + b"\xff\xff" + b"ok").text
    assert text.startswith("状態状態")
    assert text.endswith("ok")


@given(st.binary(max_size=300), st.sampled_from([None, *CODE_PAGES]))
def test_any_bytes_become_text_and_always_the_same(data: bytes, hint: str | None) -> None:
    first = decode(data, hint=hint)
    assert first == decode(data, hint=hint)
    assert "\x00" not in first.text
    first.text.encode("utf-8")
