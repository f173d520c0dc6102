// Questions: forms with feedback, what was missed returns after 1, 7 and 21 days; state in this browser alone, and as a file.
const key = "llminfra-quiz", STEPS = [1, 7, 21], day = 24 * 60 * 60 * 1000;
const read = () => { try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; } };
const write = (state) => localStorage.setItem(key, JSON.stringify(state));
const make = (tag, props = {}, ...children) => { const node = Object.assign(document.createElement(tag), props); node.append(...children); return node; };
const status = (name) => { const node = make("p", { className: name }); node.setAttribute("role", "status"); return node; };
const shuffled = (list) => { for (let i = list.length - 1; i > 0; i--) { const j = Math.floor(Math.random() * (i + 1)); [list[i], list[j]] = [list[j], list[i]]; } return list; };

// Right at once: done. Missed: asked again after a day, and once it is right then, after 7 and 21 days more.
function record(id, right) {
  const state = read(), old = state[id], now = Date.now();
  const step = right ? (old && "step" in old ? old.step + 1 : STEPS.length) : 0;
  state[id] = step < STEPS.length ? { right, step, due: now + STEPS[step] * day } : { right };
  write(state);
}
const due = (id) => { const one = read()[id]; return one && one.due !== undefined && one.due <= Date.now(); };

function choice(item) {
  const options = [...item.querySelectorAll(".quiz-options li")], why = [...item.querySelectorAll(".quiz-answer li")];
  const stem = item.querySelector(".quiz-stem"), field = make("fieldset", {}, make("legend", { innerHTML: stem.innerHTML }));
  const order = shuffled(options.map((_, index) => index));
  for (const index of order) field.append(make("label", {}, make("input", { type: "radio", name: item.dataset.id, value: index, required: true }), " ", make("span", { innerHTML: options[index].innerHTML })));
  return [field, (form) => {
    const said = Number(new FormData(form).get(item.dataset.id));
    return [why[said].hasAttribute("data-right"), why[said].innerHTML];
  }];
}

function order(item) {
  const lines = [...item.querySelectorAll(".quiz-options code")].map((node) => node.textContent);
  const wanted = item.querySelector(".quiz-order").textContent.split("\n"), because = item.querySelector(".quiz-answer p").innerHTML;
  const field = make("fieldset", {}, make("legend", { innerHTML: item.querySelector(".quiz-stem").innerHTML }));
  const list = make("div"), told = status("quiz-moved");
  field.append(list, told);
  for (const line of lines) {
    const row = make("div", { className: "quiz-line" }), code = make("code", { textContent: line });
    const button = (text, act) => { const node = make("button", { type: "button", textContent: text, onclick: () => { act(); node.focus(); told.textContent = row.classList.contains("out") ? `${line} is left out` : `${line} is line ${[...list.querySelectorAll(".quiz-line:not(.out)")].indexOf(row) + 1}`; } }); node.setAttribute("aria-label", `${text}: ${line}`); return node; };
    row.append(code, button("Up", () => row.previousElementSibling?.before(row)), button("Down", () => row.nextElementSibling?.after(row)), button("Leave out", () => row.classList.toggle("out")));
    list.append(row);
  }
  return [field, () => {
    const said = [...list.querySelectorAll(".quiz-line:not(.out) code")].map((node) => node.textContent);
    const right = said.join("\n") === wanted.join("\n");
    const first = wanted.findIndex((line, index) => line !== said[index]);
    return [right, right ? because : `Not yet: look at line ${(first < 0 ? wanted.length : first) + 1}, and at what belongs there.`];
  }];
}

function ask(item, answered = () => {}) {
  item.querySelector("form")?.remove();
  for (const part of item.querySelectorAll(":scope > .quiz-stem, :scope > .quiz-options, :scope > .quiz-answer")) part.hidden = true;
  const [field, judge] = item.dataset.kind === "order" ? order(item) : choice(item);
  const said = status("quiz-status"), form = make("form", { autocomplete: "off" }, field, make("button", { textContent: "Check" }), said);
  let first = true;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [right, text] = judge(form);
    said.innerHTML = item.dataset.kind === "order" && right ? `<strong>Right.</strong> ${text}` : text;
    item.dataset.result = right ? "right" : "missed";
    if (first) { record(item.dataset.id, right); answered(right); }
    first = false;
  });
  item.append(form);
}

function set(box) {
  const items = [...box.querySelectorAll(".quiz-item")], score = status("quiz-score"), tools = make("p", { className: "quiz-tools" });
  const results = new Map();
  const begin = (which) => {
    for (const item of shuffled([...which])) { box.append(item); results.delete(item); ask(item, (right) => { results.set(item, right); say(); }); }
    box.append(score, tools);
    say();
  };
  const say = () => {
    const missed = items.filter((item) => results.get(item) === false);
    tools.replaceChildren();
    if (results.size < items.length) { score.textContent = results.size ? `${results.size} of ${items.length} answered` : ""; return; }
    if (box.dataset.use === "check") {
      const name = (item) => `<a href="${item.dataset.section}">${item.dataset.section.split("#")[1].replaceAll("-", " ")}</a>`;
      const known = items.filter((item) => results.get(item));
      score.innerHTML = `You may skip: ${known.map(name).join(", ") || "nothing yet"}. Read: ${missed.map(name).join(", ") || "what interests you"}.`;
    } else {
      const by = items.reduce((found, item) => found.set(item.dataset.objective, [...(found.get(item.dataset.objective) ?? []), item]), new Map());
      const parts = [...by].map(([objective, own]) => `${objective} ${own.filter((item) => results.get(item)).length} of ${own.length}`);
      score.textContent = `${items.length - missed.length} of ${items.length} right. By objective: ${parts.sort().join(", ")}.`;
    }
    if (missed.length) tools.append(make("button", { type: "button", textContent: "Try again what was missed", onclick: () => { begin(missed); missed[0].querySelector("input, button").focus(); } }));
  };
  begin(items);
}

const sets = [...document.querySelectorAll(".quiz-set")];
for (const item of document.querySelectorAll(".quiz-item")) if (!item.closest(".quiz-set")) ask(item);
for (const box of sets) set(box);

const desk = document.querySelector(".quiz-desk");
if (desk) {
  const said = desk.querySelector(".quiz-status"), waiting = [...document.querySelectorAll(".quiz-item")].filter((item) => due(item.dataset.id));
  if (waiting.length) said.textContent = `${waiting.length} missed before ${waiting.length === 1 ? "is" : "are"} due again today.`;
  const save = () => { const link = make("a", { href: URL.createObjectURL(new Blob([localStorage.getItem(key) ?? "{}"], { type: "application/json" })), download: "llminfra-quiz.json" }); link.click(); };
  const file = desk.querySelector("input");
  file.addEventListener("change", async () => {
    try {
      const found = JSON.parse(await file.files[0].text());
      if (Object.values(found).some((one) => typeof one.right !== "boolean")) throw new Error();
      write({ ...read(), ...found });
      said.textContent = `${Object.keys(found).length} answers were read.`;
    } catch { said.textContent = "That file holds no answers of this course."; }
  });
  const acts = [save, () => file.click(), () => { localStorage.removeItem(key); said.textContent = "Forgotten."; }];
  for (const [at, button] of [...desk.querySelectorAll("button")].entries()) { button.disabled = false; button.addEventListener("click", acts[at]); }
  if (waiting.length) desk.append(make("button", { type: "button", textContent: "Go to the first one that is due", onclick: () => { waiting[0].scrollIntoView(); waiting[0].querySelector("input, button").focus(); } }));
}
