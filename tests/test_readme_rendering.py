"""Descriptions as HTML: what is let through, what is not, and that no text can hold up anything."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import pytest

from web import readme
from web.readme import MAX_SIZE, Renderer, markup_of

MARKDOWN, RST = "text/markdown", "text/x-rst; charset=UTF-8"


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def html(renderer: Renderer, text: str, content_type: str = MARKDOWN) -> str:
    described = renderer.render(text, content_type)
    assert described.html is not None, described.note
    return str(described.html)


# --- what is rendered ---


def test_markdown_is_rendered_as_github_does(renderer):
    shown = html(renderer, "# Toolbox\n\n| a | b |\n|---|---|\n| 1 | ~~2~~ |\n\n- [x] done\n- [ ] open\n")

    assert '<h3 id="user-content-toolbox">Toolbox</h3>' in shown
    assert "<td>1</td>" in shown
    assert "<del>2</del>" in shown
    assert "\u2611 done" in shown
    assert "\u2610 open" in shown


def test_the_variant_of_markdown_is_heeded(renderer):
    text = "| a |\n|---|\n| 1 |\n"

    assert "<table>" in html(renderer, text, "text/markdown; variant=GFM; charset=UTF-8")
    assert "<table>" not in html(renderer, text, 'text/markdown; charset=UTF-8; variant="CommonMark"')


def test_restructured_text_is_rendered_with_its_code_in_colour(renderer):
    shown = html(renderer, "Toolbox\n=======\n\n.. code-block:: python\n\n   import this\n", RST)

    assert "<h3>Toolbox</h3>" in shown
    assert '<span class="kn">import</span>' in shown


def test_a_text_without_a_type_is_tried_as_restructured_text_and_is_plain_text_else(renderer):
    good, bad = renderer.render("*Toolbox*", None), renderer.render("*Toolbox\n\n.. nonsense::\n", None)

    assert good.html is not None
    assert "<em>Toolbox</em>" in good.html
    assert (bad.html, bad.note) == (None, "")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "text/plain; charset=UTF-8", "text/html", "nonsense", "a/b/c"]
)
def test_everything_else_is_plain_text(renderer, content_type):
    described = renderer.render("# <b>Toolbox</b>", content_type)

    assert (described.html, described.text, described.note) == (None, "# <b>Toolbox</b>", "")


def test_a_type_in_any_spelling_is_understood():
    assert markup_of("TEXT/Markdown; Variant=commonmark") == "markdown-commonmark"
    assert markup_of("text/x-rst") == "rst"


# --- what is not let through ---


@pytest.mark.parametrize(
    "target",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\tscript:alert(1)",
        " javascript:alert(1)",
        "&#106;avascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "ftp://example.com/",
        "//example.com/",
        "/logout",
        "docs/index.md",
        "?tab=contents",
    ],
)
def test_a_link_elsewhere_than_to_the_web_or_to_mail_is_none(renderer, target):
    shown = html(renderer, f'<a href="{target}">a</a>\n\n[b](<{target}>)')

    assert "href=" not in shown
    assert re.search(r">a</a>", shown)


def test_links_to_the_web_and_to_mail_lead_there_without_recommending_it(renderer):
    shown = html(renderer, "[a](https://example.com/?a=1&b=2) [b](http://example.com) [c](mailto:a@example.com)")

    assert re.findall(r'href="([^"]+)"', shown) == [
        "https://example.com/?a=1&amp;b=2",
        "http://example.com",
        "mailto:a@example.com",
    ]
    assert shown.count('rel="nofollow noopener"') == 3


def test_links_within_the_text_lead_to_its_own_headings_alone(renderer):
    shown = html(renderer, '[to usage](#usage) [to main](#main)\n\n# Usage\n\n<h2 id="main">Main</h2>')

    assert 'href="#user-content-usage"' in shown
    assert 'id="user-content-usage"' in shown
    assert 'href="#user-content-main"' in shown
    assert 'id="main"' not in shown


@pytest.mark.parametrize(
    "source",
    ["http://example.com/a.png", "a.png", "/static/icon.svg", "data:image/png;base64,AA", "//example.com/a.png"],
)
def test_an_image_from_elsewhere_than_https_is_its_words_alone(renderer, source):
    shown = html(renderer, f"![the words]({source})")

    assert "src=" not in shown
    assert 'alt="the words"' in shown


def test_an_image_by_https_is_fetched_late_and_without_telling_from_where(renderer):
    shown = html(
        renderer, '<img src="https://example.com/a.png" width="10" onerror="alert(1)" srcset="http://x/y 2x">'
    )

    assert 'src="https://example.com/a.png"' in shown
    assert 'loading="lazy"' in shown
    assert 'referrerpolicy="no-referrer"' in shown
    assert 'alt=""' in shown
    assert "onerror" not in shown
    assert "srcset" not in shown


@pytest.mark.parametrize(
    "markup",
    [
        "<script>alert(1)</script>",
        "<style>body { display: none }</style>",
        "<iframe src=https://example.com></iframe>",
        "<svg onload=alert(1)><animate onbegin=alert(1)></svg>",
        "<form action=/login method=post><input name=password><button>Sign in</button></form>",
        "<p style='position: fixed'>x</p>",
        "<base href=https://example.com>",
        "<meta http-equiv=refresh content=0>",
        "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
        "<object data=x></object><embed src=x><link rel=stylesheet href=//x><video src=x>",
        "<img src=x onerror=alert(1)//",
        "<nav aria-label='Global'>x</nav><div role=alert onclick=alert(1)>x</div>",
    ],
)
def test_markup_that_acts_or_imitates_the_page_is_gone(renderer, markup):
    shown = html(renderer, f"before\n\n{markup}\n\nafter").lower()

    tags = re.findall(r"<([a-z]+)([^>]*)>", shown)
    forbidden = {"script", "style", "iframe", "svg", "form", "input", "button", "base", "meta", "object", "embed"}
    assert not forbidden & {tag for tag, _ in tags}
    assert not {"math", "noscript", "link", "video", "nav", "animate"} & {tag for tag, _ in tags}
    assert not [attributes for _, attributes in tags if re.search(r"\s(on\w+|style|role|action)\s*=", attributes)]
    assert "before" in shown


def test_the_classes_of_our_own_style_are_not_for_descriptions(renderer):
    shown = html(renderer, '<p class="notice wrong">x</p><span class="kn skip">y</span><div class="top">z</div>')

    assert re.findall(r'class="([^"]*)"', shown) == ["kn"]


@pytest.mark.parametrize(
    "text",
    [
        "x\n\n.. include:: /etc/passwd\n",
        "x\n\n.. raw:: html\n\n   <script>alert(1)</script>\n",
        "x\n\n.. raw:: html\n   :file: /etc/passwd\n",
        "x\n\n.. csv-table::\n   :file: /etc/passwd\n",
        "x\n\n.. literalinclude:: /etc/passwd\n",
        ".. role:: raw-html(raw)\n   :format: html\n\n:raw-html:`<script>`\n",
    ],
    ids=["include", "raw", "raw file", "csv file", "literalinclude", "raw role"],
)
def test_restructured_text_that_reaches_for_files_or_raw_html_is_plain_text(renderer, text):
    described = renderer.render(text, RST)

    assert described.html is None
    assert described.text == text
    assert described.note == "It cannot be rendered, so it is shown as plain text."


def test_a_link_of_restructured_text_to_a_script_is_none(renderer):
    assert "href=" not in html(renderer, "`a <javascript:alert(1)>`_", RST)


# --- bombs ---

TABLE = "+" + "+".join(["---"] * 300) + "+\n"
BOMBS = {
    "nested quotes": (">" * 50_000 + "a", MARKDOWN),
    "nested tags": ("<div>" * 90_000, MARKDOWN),
    "huge table": (TABLE + ("|" + "|".join([" a "] * 300) + "|\n" + TABLE) * 150, RST),
    "doubling substitutions": (
        "".join(f".. |a{i}| replace:: |a{i + 1}| |a{i + 1}|\n" for i in range(30))
        + ".. |a30| replace:: x\n\n|a0|\n",
        RST,
    ),
}


def children() -> set[int]:
    """The processes that this one has started and that are there, zombies included."""
    return {
        int(child)
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    }


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_plain_text_in_time_and_its_process_is_gone(bomb):
    text, content_type = BOMBS[bomb]
    renderer = Renderer(seconds=1.0)
    before = children()
    started = time.monotonic()

    described = renderer.render(text, content_type)

    assert time.monotonic() - started < 4
    assert described.html is None
    assert described.text == text
    assert described.note == "It cannot be rendered, so it is shown as plain text."
    assert children() <= before


def test_a_bomb_goes_off_once():
    text, content_type = BOMBS["nested tags"]
    renderer = Renderer(seconds=1.0)
    renderer.render(text, content_type)
    started = time.monotonic()

    again = renderer.render(text, content_type)

    assert time.monotonic() - started < 0.5
    assert again.html is None


def test_a_bomb_keeps_no_other_text_waiting():
    text, content_type = BOMBS["nested tags"]
    renderer = Renderer(seconds=4.0)
    bomb = threading.Thread(target=renderer.render, args=(text, content_type))
    bomb.start()
    time.sleep(0.1)

    shown = html(renderer, "# Toolbox")

    assert bomb.is_alive()
    assert "Toolbox" in shown
    bomb.join()


def test_when_all_places_are_taken_a_text_is_shown_as_it_is_and_rendered_the_next_time(monkeypatch):
    monkeypatch.setattr(readme, "MAX_WAIT", 0.05)
    text, content_type = BOMBS["nested tags"]
    renderer = Renderer(seconds=2.0, children=1)
    bomb = threading.Thread(target=renderer.render, args=(text, content_type))
    bomb.start()
    time.sleep(0.1)

    meanwhile = renderer.render("# Toolbox", MARKDOWN)
    bomb.join()
    monkeypatch.setattr(renderer, "_seconds", 60.0)  # this one is no bomb, and the machine may be busy
    afterwards = renderer.render("# Toolbox", MARKDOWN)

    assert meanwhile.html is None
    assert meanwhile.note == "It is shown as plain text because the server is busy."
    assert afterwards.html is not None


def test_a_text_of_more_than_the_limit_is_never_rendered_and_cut():
    described = Renderer().render("é" * MAX_SIZE, MARKDOWN)

    assert described.html is None
    assert described.text == "é" * (MAX_SIZE // 2)
    assert described.note == "It is longer than 512 kB, so it is shown as plain text."


def test_what_was_rendered_is_kept_by_its_text_and_its_type():
    renderer = Renderer()
    first = renderer.render("*Toolbox*", MARKDOWN)
    command = readme._PROGRAM
    try:
        readme._PROGRAM = Path(os.devnull)  # whoever is asked now renders nothing
        kept, other = renderer.render("*Toolbox*", MARKDOWN), renderer.render("*Toolbox*", RST)
    finally:
        readme._PROGRAM = command

    assert kept == first
    assert "<em>Toolbox</em>" in kept.html
    assert other.html == ""


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(readme, "MAX_KEPT", 2500)
    renderer = Renderer()

    for number in range(4):
        renderer.render(f"number {number}", MARKDOWN)

    assert len(renderer._kept) == 2
    assert renderer._kept_size <= 2500


@pytest.mark.parametrize("text", ["", " \n", "\x00", "\ufffe \U0010ffff", "\r\r\r", "a\x0cb"])
def test_odd_texts_do_not_break_anything(renderer, text):
    for content_type in (MARKDOWN, RST, None):
        assert renderer.render(text, content_type).text == text
