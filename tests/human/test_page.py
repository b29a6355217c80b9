"""The page in a headless Chromium: keys, ranking, editing, texts that would be markup, going on after a reload and a crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ftcli.human.desk import Desk
from ftcli.human.store import Candidate, Item, Store
from tests.human.chromium import BROWSER, Chromium
from tests.human.conftest import answers, pair, rank_task, review_item, review_task
from tests.human.serving import serving

pytestmark = [
    pytest.mark.enable_socket,  # loopback
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
]

MARKUP = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script> &lt;b&gt; {{7*7}} </textarea>'
HIDDEN = "safe\u202egnp.exe\u202c \u200bx\u0007\ufeff end\U000e0041"
SHOWN = ["U+202E", "U+202C", "U+200B", "U+0007", "U+FEFF", "U+E0041"]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        browser.size(1280, 900)
        yield browser


@pytest.fixture
def page(chromium: Chromium) -> Iterator[Chromium]:
    chromium.events.clear()
    yield chromium
    assert chromium.complaints() == []
    assert chromium.run("window.pwned") is None
    chromium.open("about:blank")


def enter(page: Chromium, link: str) -> None:
    page.open(link)
    page.wait(
        "location.pathname === '/' && typeof busy !== 'undefined' && !busy && document.getElementById('who').textContent"
    )


def after(page: Chromium, done: int) -> None:
    page.wait(f"!busy && view && view.done === {done}")


def test_keys_vote_tie_skip_and_undo_and_the_link_leaves_the_address(page: Chromium, tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite")
    store.publish(rank_task(repeat_share=0.0), [pair(number) for number in range(7)])
    with serving(Desk(store, ["ann"])) as served:
        enter(page, served.link("ann"))
        after(page, 0)
        assert page.run("location.href") == f"{served.origin}/#0"
        assert page.run("document.cookie") == ""
        for done, key in enumerate(["1", "2", "3", "4", "s", "ArrowRight"], start=1):
            page.press(key)
            after(page, done)
        page.press("u")
        after(page, 5)
        page.press("ArrowLeft")
        after(page, 6)
        page.press("?")
        assert page.run("document.getElementById('help').open")
        page.press("1")  # the list of keys is open: this is no vote
        page.run("document.getElementById('help').close()")
        page.press("n")
        page.type("1 2 3 sus")  # keys in a note are its text
        assert page.run("document.getElementById('note').value") == "1 2 3 sus"
        page.press("Escape")
        page.press("2")
        after(page, 7)
    said = [(one.verdict, tuple(one.ranks.get(id) for id in one.order)) for one in store.judgements("rank-1")]
    none = (None, None)
    expected = [("ranked", (1, 2)), ("ranked", (2, 1)), ("ranked", (1, 1)), ("both_bad", none), ("skip", none)]
    assert said == [*expected, ("ranked", (1, 2)), ("ranked", (2, 1))]
    assert [one.note for one in store.judgements("rank-1")] == [""] * 6 + ["1 2 3 sus"]


def test_a_reload_and_a_new_server_go_on_at_the_same_place(page: Chromium, tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite")
    store.publish(rank_task(repeat_share=0.0), [pair(number) for number in range(3)])
    store.publish(rank_task(id="rank-2", repeat_share=0.0), [pair(number) for number in range(2)])
    with serving(Desk(store, ["ann"])) as served:
        enter(page, served.link("ann"))
        page.wait("document.querySelectorAll('.card').length === 2")
        page.press("2")
        after(page, 0)
        page.press("1")
        after(page, 1)
        page.call("Page.reload")
        page.wait("typeof view !== 'undefined' && view && view.task === 1 && view.done === 1 && !busy")
        seen = page.run("view.answers")
    page.press("1")  # nobody answers: the vote is not taken for saved
    page.wait("!busy && !document.getElementById('error').hidden")
    assert "does not answer" in page.run("document.getElementById('error').innerText")
    assert page.run("view.done") == 1
    page.events[:] = [one for one in page.events if one["method"] != "Log.entryAdded"]  # the refused connection
    with serving(Desk(Store(store.path), ["ann"])) as served:
        enter(page, served.link("ann"))
        page.press("2")
        after(page, 1)
        assert page.run("view.answers") == seen
    assert len(store.judgements("rank-2")) == 1


def test_three_and_more_are_ranked_by_keys_with_ties_and_by_dragging(page: Chromium, tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite")
    store.publish(rank_task(repeat_share=0.0), [answers(number, 4) for number in range(3)])
    with serving(Desk(store, ["ann"])) as served:
        enter(page, served.link("ann"))
        after(page, 0)
        for key in ("3", "1", "=", "2", "Enter"):  # Enter comes too early
            page.press(key)
        assert page.run("view.done") == 0
        page.press("Backspace")
        for key in ("=", "2", "4", "Enter"):
            page.press(key)
        after(page, 1)
        for key in ("1", "2", "3", "4"):
            page.press(key)
        x, y = page.run(_middle(3))
        page.mouse("mousePressed", x, y)
        for target in (2, 0):
            x, y = page.run(_middle(target))
            page.mouse("mouseMoved", x, y)
        page.mouse("mouseReleased", x, y)
        page.wait("document.querySelectorAll('.chip.held').length === 0")
        assert page.run("ranking.placed") == [3, 0, 1, 2]
        page.press("Enter")
        after(page, 2)
        page.press("t")
        after(page, 3)
    said = [[one.ranks[id] for id in one.order] for one in store.judgements("rank-1")]
    assert said == [[2, 2, 1, 4], [2, 3, 4, 1], [1, 1, 1, 1]]


def _middle(place: int) -> str:
    box = f"document.querySelector('.chip[data-place=\"{place}\"]').getBoundingClientRect()"
    return f"(box => [box.x + box.width / 2, box.y + box.height / 2])({box})"


def test_markup_and_hidden_characters_are_shown_as_they_are(page: Chromium, tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite")
    prompt = [{"role": MARKUP, "content": MARKUP}]
    item = Item("a", prompt, (Candidate.of(f"one {MARKUP}", MARKUP), Candidate.of(f"two {HIDDEN}", "tuned")))
    row = {"id": "r", MARKUP: MARKUP, "messages": [{"role": MARKUP, "content": MARKUP + HIDDEN}]}
    store.publish(rank_task(repeat_share=0.0, title=MARKUP, guidelines=MARKUP, criteria=(MARKUP,)), [item])
    store.publish(review_task(title=HIDDEN), [Item("r", [], row=row)])
    with serving(Desk(store, ["ann"])) as served:
        enter(page, served.link("ann"))
        page.wait("document.querySelectorAll('.card').length === 2")
        assert page.run("document.querySelector('.card strong').textContent") == MARKUP
        page.press("1")
        after(page, 0)
        for place in ("#title", "#guidelines-text", "#prompt .text", "#prompt .role", "#criteria legend"):
            assert page.run(f"document.querySelector('{place}').textContent") == MARKUP
        shown = page.run("[...document.querySelectorAll('#answers .text')].map(one => one.textContent)")
        assert f"one {MARKUP}" in shown
        assert page.run("[...document.querySelectorAll('#answers .code')].map(one => one.textContent)") == SHOWN
        page.press("d")
        assert page.run("document.querySelectorAll('mark').length") > 4
        assert f"one {MARKUP}" in page.run(
            "[...document.querySelectorAll('#answers .text')].map(one => one.textContent)"
        )
        page.press("1")
        after(page, 1)
        page.run("document.querySelector('#end button.main').click()")
        page.wait("document.querySelectorAll('td').length")
        assert MARKUP in page.run("[...document.querySelectorAll('td')].map(one => one.textContent)")
        page.run("document.getElementById('home').click()")
        page.wait("view === null && !busy")
        page.press("2")
        page.wait("view && view.kind === 'review' && !busy")
        page.press("2")
        assert page.run("document.querySelectorAll('#answers textarea')[0].value") == MARKUP
        page.type(MARKUP)
        assert page.run("document.querySelector('#answers ins').textContent") != ""
        assert page.run("document.querySelectorAll('img, script:not([src]), b').length") == 0


def test_a_row_is_accepted_edited_with_its_changes_shown_and_rejected_with_a_reason(
    page: Chromium, tmp_path: Path
) -> None:
    store = Store(tmp_path / "desk.sqlite")
    row = {
        "id": "r2",
        "messages": [{"role": "user", "content": "One\r\ntwo"}, {"role": "assistant", "content": "Three"}],
    }
    store.publish(review_task(), [review_item(0), review_item(1), Item("r2", [], row=row)])
    with serving(Desk(store, ["ann"])) as served:
        enter(page, served.link("ann"))
        for done in range(3):
            after(page, done)
            if page.run("view.parts[1].text") == "Three":
                page.press("2")
                page.run("document.querySelectorAll('#answers textarea')[1].focus()")
                page.type(" and four")
                assert page.run("document.querySelector('#answers ins').textContent") != ""
                page.press("Enter", ctrl=True)
            elif "0" in page.run("view.parts[1].text"):
                page.press("1")
            else:
                page.press("3")
                page.wait("document.getElementById('reject').open")
                page.run("document.getElementById('reason').focus()")
                page.type("wrong fact")
                page.press("Enter", ctrl=True)
        after(page, 3)
    said = {one.item: one for one in store.judgements("review-1")}
    assert said["r0"].verdict == "accept"
    assert (said["r1"].verdict, said["r1"].reason) == ("reject", "wrong fact")
    edited = {**row, "messages": [row["messages"][0], {"role": "assistant", "content": "Three and four"}]}
    assert (said["r2"].verdict, said["r2"].edited) == ("edit", edited)  # line ends of the text left alone are kept


def test_criteria_and_strength_go_with_the_vote(page: Chromium, tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite")
    store.publish(rank_task(repeat_share=0.0, criteria=("helpful", "correct")), [pair(0)])
    with serving(Desk(store, ["ann"])) as served:
        enter(page, served.link("ann"))
        after(page, 0)
        page.press("c")
        page.run("document.querySelectorAll('#criteria fieldset')[0].querySelectorAll('input')[1].click()")
        page.run("document.querySelectorAll('#criteria fieldset')[1].querySelectorAll('input')[2].click()")
        page.run("document.querySelectorAll('#strength input')[5].click()")
        page.run("document.activeElement.blur()")
        page.press("2")
        after(page, 1)
    (said,) = store.judgements("rank-1")
    assert (said.strength, said.criteria) == (6, {"helpful": said.order[1], "correct": "tie"})


@pytest.mark.parametrize(("width", "columns"), [(1280, 2), (390, 1)])
def test_nothing_overflows_and_answers_stand_side_by_side_where_there_is_room(
    page: Chromium, tmp_path: Path, width: int, columns: int
) -> None:
    store = Store(tmp_path / "desk.sqlite")
    long = "x" * 400
    store.publish(rank_task(title=long), [Item("a", [], (Candidate.of(long, "a"), Candidate.of(long + "y", "b")))])
    with serving(Desk(store, ["ann"])) as served:
        page.size(width, 844)
        enter(page, served.link("ann"))
        after(page, 0)
        page.press("c")
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("new Set([...document.querySelectorAll('.answer')].map(one => one.offsetLeft)).size") == columns
        page.size(1280, 900)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_in_both_schemes(page: Chromium, tmp_path: Path, scheme: str) -> None:
    store = Store(tmp_path / "desk.sqlite")
    store.publish(rank_task(), [pair(0)])
    with serving(Desk(store, ["ann"])) as served:
        page.scheme(scheme)
        enter(page, served.link("ann"))
        after(page, 0)
        colours = page.run(
            "['ink', 'muted', 'page', 'panel', 'bad', 'mark', 'accent', 'on-accent']"
            ".map(one => getComputedStyle(document.documentElement).getPropertyValue('--' + one).trim())"
        )
        ink, muted, ground, panel, bad, mark, accent, on_accent = map(_luminance, colours)
        pairs = [
            (ink, ground),
            (ink, panel),
            (muted, ground),
            (muted, panel),
            (bad, panel),
            (ink, mark),
            (accent, on_accent),
        ]
        assert all(
            (max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5 for pair in pairs
        )  # WCAG 2.2, success criterion 1.4.3
        assert (ground < 0.2) == (scheme == "dark")
        page.scheme("light")


def _luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_control_has_a_name_for_screen_readers(page: Chromium, tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite")
    store.publish(rank_task(criteria=("helpful",)), [answers(0, 3)])
    with serving(Desk(store, ["ann"])) as served:
        enter(page, served.link("ann"))
        after(page, 0)
        page.press("c")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    wanted = {"button", "radio", "textbox", "progressbar", "article", "DisclosureTriangle"}
    seen = [(one["role"]["value"], one.get("name", {}).get("value", "")) for one in nodes if not one["ignored"]]
    assert [(role, name) for role, name in seen if role in wanted and not name.strip()] == []
    assert {"Answer A", "Answer B", "Answer C"} <= {name for role, name in seen if role == "article"}
    assert len([1 for role, _ in seen if role in wanted]) > 20
