// The page of the desk. All text that models or people wrote goes through textContent; this file makes no HTML from strings.
"use strict";

const $ = (id) => document.getElementById(id);
const LETTERS = "ABCDEFGH";
const LONGEST_DIFF = 4e6; // cells of the table of word against word

// Characters that hide or reorder text: controls, bidi marks, zero widths, line separators, tags.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

let view = null; // what the server says to show, or null on the list of tasks
let busy = false; // a request is under way: keys wait for it
let ranking = null; // { placed: [place on screen, best first], tied: [whether it ties with the one before] }
let nextTies = false; // "=" was pressed
let clock = { spent: 0, since: null }; // time with the page in sight, in ms
let retry = null; // what the button of the error message does
let marked = false; // differences are marked

// ---- the server

async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The desk does not answer. Nothing that was saved is lost.");
  }
  const value = await answer.json().catch(() => ({ error: "Open the desk with your link again." }));
  if (!answer.ok) throw new Error(value.error);
  return value;
}

// One request at a time; what fails says so, and can be tried again with what was given.
async function act(work) {
  if (busy) return;
  busy = true;
  $("error").hidden = true;
  try {
    await work();
  } catch (error) {
    retry = () => act(work);
    $("error").replaceChildren(make("span", "", error.message), button("Try again", () => retry()));
    $("error").hidden = false;
  } finally {
    busy = false;
  }
}

// ---- pieces of the page

function make(tag, kind = "", text = "") {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text) element.textContent = text;
  return element;
}

function button(text, action, key = "", kind = "") {
  const element = make("button", kind, text);
  element.type = "button";
  if (key) {
    element.append(" ", make("kbd", "", key));
    element.setAttribute("aria-keyshortcuts", key);
  }
  element.addEventListener("click", action);
  return element;
}

// Text with each hidden character as its code point in a box.
function write(element, text) {
  let done = 0;
  for (const found of text.replaceAll("\r\n", "\n").matchAll(HIDDEN)) {
    const source = found.input;
    element.append(source.slice(done, found.index));
    const code = make("span", "code", "U+" + found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0"));
    code.title = "a character that is not visible";
    element.append(code);
    done = found.index + found[0].length;
  }
  element.append(text.replaceAll("\r\n", "\n").slice(done));
  return element;
}

function textBlock(text, kind = "text") {
  const element = make("div", kind);
  element.dir = "auto";
  return write(element, text);
}

const say = (text) => { $("status").textContent = text; };

// ---- word diff

const words = (text) => text.match(/\s+|[^\s]+/g) || [];

// For each word of a and b whether it is in a longest common subsequence; null where that would take too long.
function common(a, b) {
  if ((a.length + 1) * (b.length + 1) > LONGEST_DIFF) return null;
  const width = b.length + 1;
  const table = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      table[i * width + j] = a[i] === b[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
  const steps = []; // [word, in a, in b] in order
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) steps.push([a[i++], true, true]), j++;
    else if (j >= b.length || (i < a.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) steps.push([a[i++], true, false]);
    else steps.push([b[j++], false, true]);
  }
  return steps;
}

function drawMarked(element, text, other) {
  element.replaceChildren();
  const steps = common(words(text), words(other));
  if (steps === null) return write(element, text);
  for (const [word, here, there] of steps) {
    if (!here) continue;
    element.append(there || !word.trim() ? write(make("span"), word) : write(make("mark"), word));
  }
  return element;
}

function drawChanges(element, before, after) {
  element.replaceChildren();
  element.hidden = before === after;
  const steps = element.hidden ? [] : common(words(before), words(after));
  if (steps === null) return write(element, "The texts are too long to compare.");
  for (const [word, was, is] of steps) element.append(write(make(was && is ? "span" : was ? "del" : "ins"), word));
  return element;
}

// ---- the list of tasks

async function showTasks() {
  const { grader, tasks } = await call("/api/tasks");
  view = null;
  $("who").textContent = grader;
  $("title").textContent = "Desk";
  history.replaceState(null, "", location.pathname);
  show("tasks");
  $("tasks").replaceChildren(...tasks.map((task, number) => {
    const card = make("button", "card");
    card.type = "button";
    const name = make("span");
    const state = task.done < task.total ? `${task.done} of ${task.total} judged` : `done: ${task.total} judged`;
    name.append(write(make("strong"), task.title), make("span", "muted", state));
    const bar = make("progress");
    bar.max = task.total || 1;
    bar.value = task.total ? task.done : 1;
    bar.setAttribute("aria-hidden", "true");
    card.append(name, bar, number < 9 ? make("kbd", "", String(number + 1)) : "");
    card.addEventListener("click", () => openTask(number));
    return card;
  }));
  if (!tasks.length) $("tasks").append(make("p", "muted", "Nothing is asked here yet."));
  return tasks;
}

const openTask = (number) => act(async () => draw(await call("/api/view", { task: number })));

function show(section) {
  for (const id of ["tasks", "work", "end"]) $(id).hidden = id !== section;
  $("home").hidden = section === "tasks";
  $("progress-row").hidden = section === "tasks";
}

// ---- one showing

function draw(next) {
  const opened = view === null || view.task !== next.task;
  view = next;
  history.replaceState(null, "", "#" + view.task);
  $("title").replaceChildren();
  write($("title"), view.title);
  $("progress").max = view.total || 1;
  $("progress").value = view.done;
  $("count").textContent = `${view.done} of ${view.total}`;
  if (view.showing === null) return drawEnd();
  show("work");
  $("guidelines").hidden = !view.guidelines;
  $("guidelines-text").replaceChildren();
  write($("guidelines-text"), view.guidelines);
  if (opened) $("guidelines").open = view.done === 0;
  $("prompt").replaceChildren(...view.prompt.map((message) => {
    const block = make("div");
    block.append(make("p", "role", message.role), textBlock(message.text));
    return block;
  }));
  $("prompt").hidden = !view.prompt.length;
  $("prompt").scrollTop = 0;
  for (const id of ["note", "reason"]) $(id).value = "";
  if (view.kind === "rank") drawAnswers();
  else drawRow();
  window.scrollTo(0, 0);
  clock = { spent: 0, since: document.hidden ? null : performance.now() };
  say(`${view.done + 1} of ${view.total}`);
}

function drawAnswers() {
  const count = view.answers.length;
  $("answers").className = count === 4 ? "four" : "";
  $("answers").replaceChildren(...view.answers.map((text, place) => {
    const card = make("article", "answer");
    card.setAttribute("aria-label", "Answer " + LETTERS[place]);
    const head = make("h2", "", "Answer " + LETTERS[place]);
    head.append(make("span", "rank"));
    card.append(head, textBlock(text));
    return card;
  }));
  $("tools").hidden = false;
  markDifferences(marked);
  ranking = count > 2 ? { placed: [], tied: [] } : null;
  nextTies = false;
  $("lane").hidden = count === 2;
  const choices = count === 2
    ? [["A is better", () => voteRanks([1, 2]), "1"], ["B is better", () => voteRanks([2, 1]), "2"],
       ["Tie", () => voteRanks([1, 1]), "3"], ["Both bad", () => vote({ verdict: "both_bad" }), "4"]]
    : [["Save the order", saveRanking, "Enter", "main"], ["All tie", () => voteRanks(view.answers.map(() => 1)), "t"],
       ["All bad", () => vote({ verdict: "both_bad" }), "b"], ["Start over", () => { ranking = { placed: [], tied: [] }; drawChips(); }, "x"]];
  $("buttons").replaceChildren(...[...choices, ...always()].map((one) => button(...one)));
  drawMore();
  if (ranking) drawChips();
}

const always = () => [["Skip", () => vote({ verdict: "skip" }), "s"], ["Undo", undo, "u"]];

function drawMore() {
  $("strength").hidden = false;
  $("criteria").hidden = false;
  scale($("strength").querySelector(".scale"), "strength", [1, 2, 3, 4, 5, 6, 7].map((one) => [one, String(one)]));
  $("criteria").replaceChildren(...view.criteria.map((name) => {
    const field = make("fieldset");
    const row = make("div", "scale");
    field.append(write(make("legend"), name), row);
    scale(row, "criterion " + name, [...view.answers.map((_, place) => [place, LETTERS[place]]), [-1, "tie"]]);
    return field;
  }));
}

function scale(row, name, choices) {
  row.replaceChildren(...choices.map(([value, text]) => {
    const label = make("label");
    const input = make("input");
    Object.assign(input, { type: "radio", name, value: String(value) });
    label.append(input, make("span", "", text));
    return label;
  }));
}

const picked = (row) => { const input = row.querySelector("input:checked"); return input ? Number(input.value) : null; };

function markDifferences(on) {
  marked = on;
  $("diff").setAttribute("aria-pressed", String(on));
  document.querySelectorAll("#answers .answer > .text").forEach((block, place) => {
    const other = view.answers[place === 0 ? 1 : 0];
    if (on) drawMarked(block, view.answers[place], other);
    else write((block.replaceChildren(), block), view.answers[place]);
  });
}

// ---- ranking of three and more

function ranks() {
  const found = Array(view.answers.length).fill(null);
  let rank = 0;
  ranking.placed.forEach((place, position) => {
    if (!ranking.tied[position]) rank = position + 1;
    found[place] = rank;
  });
  return found;
}

function drawChips() {
  const given = ranks();
  document.querySelectorAll("#answers .answer").forEach((card, place) => {
    card.classList.toggle("chosen", given[place] !== null);
    card.querySelector(".rank").textContent = given[place] === null ? "" : "rank " + given[place];
  });
  const open = view.answers.map((_, place) => place).filter((place) => given[place] === null);
  const items = [...ranking.placed, ...open].map((place, position) => {
    const item = make("li");
    const isPlaced = position < ranking.placed.length;
    if (isPlaced && position > 0) {
      const join = button(ranking.tied[position] ? "=" : ">", () => { ranking.tied[position] = !ranking.tied[position]; drawChips(); }, "", "join");
      join.setAttribute("aria-label", ranking.tied[position] ? "ties with the one before; change" : "is worse than the one before; change");
      item.append(join);
    }
    const chip = button(`${LETTERS[place]}`, () => togglePlace(place), String(place + 1), isPlaced ? "chip" : "chip open");
    chip.dataset.place = place;
    chip.setAttribute("aria-label", `Answer ${LETTERS[place]}, ${isPlaced ? "rank " + given[place] : "not ranked"}`);
    chip.addEventListener("pointerdown", (event) => startDrag(event, place));
    item.append(chip);
    return item;
  });
  $("chips").replaceChildren(...items);
  $("buttons").querySelector("button").disabled = open.length > 0;
  say(ranking.placed.map((place, position) => (position ? (ranking.tied[position] ? " ties with " : " then ") : "") + LETTERS[place]).join(""));
}

function togglePlace(place) {
  const position = ranking.placed.indexOf(place);
  if (position >= 0) {
    ranking.placed.splice(position, 1);
    ranking.tied.splice(position, 1);
    ranking.tied[0] = false;
    if (!ranking.placed.length) ranking.tied = [];
  } else {
    ranking.tied.push(nextTies && ranking.placed.length > 0);
    ranking.placed.push(place);
  }
  nextTies = false;
  drawChips();
}

// A chip that is moved over another takes its place; moved over one that is not ranked yet, it is ranked last.
function startDrag(event, place) {
  const [startX, startY] = [event.clientX, event.clientY];
  let moved = false;
  const over = (event) => {
    if (!moved && Math.hypot(event.clientX - startX, event.clientY - startY) < 6) return;
    moved = true;
    const target = document.elementFromPoint(event.clientX, event.clientY)?.closest(".chip");
    if (!target || Number(target.dataset.place) === place) return;
    const from = ranking.placed.indexOf(place);
    const to = ranking.placed.indexOf(Number(target.dataset.place));
    if (from >= 0) ranking.placed.splice(from, 1);
    ranking.placed.splice(to < 0 ? ranking.placed.length : to, 0, place);
    ranking.tied = ranking.placed.map(() => false); // ties are between neighbours, who are others now
    drawChips();
    document.querySelector(`.chip[data-place="${place}"]`).classList.add("held");
  };
  const end = () => {
    removeEventListener("pointermove", over);
    removeEventListener("pointercancel", end);
    if (moved) {
      addEventListener("click", (event) => event.stopPropagation(), { capture: true, once: true });
      setTimeout(drawChips);
    }
  };
  addEventListener("pointermove", over);
  addEventListener("pointerup", end, { once: true });
  addEventListener("pointercancel", end);
}

function saveRanking() {
  if (ranking.placed.length < view.answers.length) return say("Some answers have no rank yet.");
  return voteRanks(ranks());
}

// ---- review of a row

function drawRow() {
  $("tools").hidden = true;
  $("lane").hidden = true;
  $("strength").hidden = true;
  $("criteria").hidden = true;
  $("answers").className = "one";
  $("answers").replaceChildren(...view.parts.map((part) => {
    const card = make("article", "answer");
    card.setAttribute("aria-label", part.label);
    card.append(write(make("h2"), part.label), textBlock(part.text));
    return card;
  }));
  drawReviewButtons();
}

const isEditing = () => view !== null && view.kind === "review" && document.querySelector("#answers textarea") !== null;

function drawReviewButtons() {
  const choices = isEditing()
    ? [["Save the edit", saveEdit, "Ctrl+Enter", "main"], ["Leave the edit", () => drawRow(), "Esc"]]
    : [["Accept", () => vote({ verdict: "accept" }), "1"], ["Edit", edit, "2"], ["Reject", () => $("reject").showModal(), "3"], ...always()];
  $("buttons").replaceChildren(...choices.map((one) => button(...one)));
}

function edit() {
  document.querySelectorAll("#answers .answer").forEach((card, place) => {
    const part = view.parts[place];
    if (!part.editable) return;
    const box = make("textarea");
    const changes = make("div", "text changes");
    changes.hidden = true;
    box.value = part.text;
    box.setAttribute("aria-label", part.label);
    box.addEventListener("input", () => drawChanges(changes, part.text, edited(part, box)));
    card.querySelector(".text").replaceWith(box);
    card.append(changes);
    box.style.height = Math.min(box.scrollHeight + 4, 480) + "px";
  });
  drawReviewButtons();
  document.querySelector("#answers textarea")?.focus();
}

// A text box changes every line end to \n; a text that was not changed otherwise is the text it was.
const edited = (part, box) => (box.value === part.text.replace(/\r\n?/g, "\n") ? part.text : box.value);

function saveEdit() {
  const parts = view.parts.filter((part) => part.editable);
  const texts = [...document.querySelectorAll("#answers textarea")].map((box, place) => edited(parts[place], box));
  if (texts.every((text, place) => text === parts[place].text)) return say("Nothing was changed.");
  return vote({ verdict: "edit", texts });
}

// ---- votes

const voteRanks = (given) => vote({ verdict: "ranked", ranks: given });

function vote(said) {
  const seconds = (clock.spent + (clock.since === null ? 0 : performance.now() - clock.since)) / 1000;
  const body = { task: view.task, showing: view.showing, seconds, note: $("note").value, ...said };
  if (view.kind === "rank") {
    body.strength = said.verdict === "ranked" ? picked($("strength")) : null;
    body.criteria = {};
    [...$("criteria").children].forEach((field, place) => {
      const best = picked(field);
      if (best !== null) body.criteria[view.criteria[place]] = best;
    });
  }
  return act(async () => {
    const next = await call(view.kind === "rank" ? "/api/vote" : "/api/review", body);
    say("saved");
    draw(next);
  });
}

function undo() {
  const task = view.task;
  return act(async () => draw(await call("/api/undo", { task })));
}

// ---- the end

function drawEnd() {
  show("end");
  const title = make("h2", "", view.total ? `All ${view.total} are judged. Thank you.` : "There is nothing to judge here for you.");
  if (view.revealed) return act2(() => drawSummary(title));
  const text = make("p", "muted", "Votes are saved. When you look at the summary the models are named, and your votes can no longer change.");
  const row = make("div", "bar");
  row.append(button("Show the summary", () => act(() => drawSummary(title)), "", "main"), button("Undo", undo, "u"));
  $("end").replaceChildren(title, ...(view.total ? [text, row] : []));
  say(title.textContent);
}

// drawEnd is called while a request is under way: the next one follows it.
const act2 = (work) => setTimeout(() => act(work));

const VERDICTS = { ranked: "ranked", both_bad: "both bad", skip: "skipped", accept: "accepted", edit: "edited", reject: "rejected" };

async function drawSummary(title) {
  const found = await call("/api/summary", { task: view.task });
  view.revealed = true;
  const list = make("dl");
  const fact = (name, value) => list.append(make("dt", "muted", name), make("dd", "", value));
  for (const [verdict, count] of Object.entries(found.verdicts)) fact(VERDICTS[verdict], String(count));
  if (found.median_seconds !== null) fact("median time", `${found.median_seconds} s`);
  if (found.left?.of) fact("the left one was better", `${found.left.left} of ${found.left.of}`);
  if (found.repeats?.of) fact("the same when asked twice", `${found.repeats.same} of ${found.repeats.of}`);
  $("end").replaceChildren(title, list);
  if (!found.models?.length) return;
  const table = make("table");
  const row = (cells, tag) => { const line = table.insertRow(); for (const cell of cells) line.append(write(make(tag), cell)); };
  row(["Model", "best", "best with others", "not best"], "th");
  for (const one of found.models) row([one.model, String(one.won), String(one.tied), String(one.lost)], "td");
  const frame = make("div", "scroll");
  frame.append(table);
  $("end").append(frame, make("p", "muted", "Your votes alone. The report of the run has the votes of all, with intervals."));
}

// ---- keys

const HELP = [
  ["1 2 or ← →", "that answer is better"], ["3", "tie"], ["4", "both bad"], ["1 2 3 …", "with three or more: the next best"],
  ["=", "the next one ties with the last"], ["Backspace", "take the last one back"], ["Enter", "save the order"], ["t b", "all tie, all bad"],
  ["1 2 3", "a row: accept, edit, reject"], ["Ctrl Enter", "save an edit"], ["s", "skip"], ["u", "undo"], ["n", "note"],
  ["c", "criteria and strength"], ["d", "mark differences"], ["g", "guidelines"], ["?", "this list"],
];

function pairKey(key) {
  const given = { 1: [1, 2], ArrowLeft: [1, 2], 2: [2, 1], ArrowRight: [2, 1], 3: [1, 1] }[key];
  if (given) voteRanks(given);
  else if (key === "4") vote({ verdict: "both_bad" });
}

function rankKey(key) {
  const place = Number(key) - 1;
  if (place >= 0 && place < view.answers.length) ranking.placed.includes(place) ? say(`${LETTERS[place]} has its rank`) : togglePlace(place);
  else if (key === "=") nextTies = true;
  else if (key === "Backspace" && ranking.placed.length) togglePlace(ranking.placed.at(-1));
  else if (key === "Enter") saveRanking();
  else if (key === "t") voteRanks(view.answers.map(() => 1));
  else if (key === "b") vote({ verdict: "both_bad" });
  else if (key === "x") { ranking = { placed: [], tied: [] }; drawChips(); }
}

function reviewKey(key) {
  if (isEditing()) return;
  if (key === "1") vote({ verdict: "accept" });
  else if (key === "2") edit();
  else if (key === "3") $("reject").showModal();
}

function toggle(id) {
  $(id).open = !$(id).open;
}

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.altKey || event.metaKey) return;
  const typing = event.target.matches("textarea");
  if (event.key === "Enter" && event.ctrlKey && isEditing()) { event.preventDefault(); saveEdit(); return; }
  if (event.key === "Escape") { if (isEditing()) drawRow(); event.target.blur?.(); return; }
  if (typing || event.ctrlKey || event.repeat || busy) return;
  const onControl = event.target.matches("button, summary, input");
  if (onControl && (event.key === "Enter" || event.key === " ")) return;
  if (event.target.matches("input") && event.key.startsWith("Arrow")) return;
  if (event.key === "?") { $("help").showModal(); return; }
  if (view === null) { const card = $("tasks").children[Number(event.key) - 1]; if (/^[1-9]$/.test(event.key) && card) card.click(); return; }
  if (event.key === "u" && !view.revealed && !isEditing()) { undo(); return; }
  if (view.showing === null) return;
  if (/^([1-9a-z=]|Backspace|Arrow(Left|Right))$/.test(event.key)) event.preventDefault(); // a key that opens a box is not typed into it
  if (event.key === "s" && !isEditing()) vote({ verdict: "skip" });
  else if (event.key === "n") { $("more").open = true; $("note").focus(); }
  else if (event.key === "c") toggle("more");
  else if (event.key === "g") toggle("guidelines");
  else if (event.key === "d" && view.kind === "rank") markDifferences(!marked);
  else if (view.kind === "review") reviewKey(event.key);
  else (ranking ? rankKey : pairKey)(event.key);
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden && clock.since !== null) clock = { spent: clock.spent + performance.now() - clock.since, since: null };
  else if (!document.hidden && clock.since === null) clock.since = performance.now();
});

$("home").addEventListener("click", () => act(showTasks));
$("help-open").addEventListener("click", () => $("help").showModal());
$("diff").addEventListener("click", () => markDifferences(!marked));
$("reject").addEventListener("close", () => {
  if ($("reject").returnValue === "reject") vote({ verdict: "reject", reason: $("reason").value });
  $("reject").returnValue = "";
});
$("reason").addEventListener("keydown", (event) => { if (event.key === "Enter" && event.ctrlKey) $("reject").close("reject"); });
for (const [keys, meaning] of HELP) {
  const term = make("dt");
  term.append(make("kbd", "", keys));
  $("keys").append(term, make("dd", "", meaning));
}

act(async () => {
  const asked = location.hash.slice(1);
  const tasks = await showTasks();
  const number = /^\d+$/.test(asked) ? Number(asked) : tasks.length === 1 ? 0 : -1;
  if (number >= 0 && number < tasks.length) draw(await call("/api/view", { task: number }));
});
