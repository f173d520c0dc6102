// Predictions: fold what the cells below a question show until the reader commits or declines, then say how far off they were.
const key = "llminfra-predict", page = location.pathname.split("/").pop();
const read = () => { try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; } };
const make = (tag, props, ...children) => { const node = Object.assign(document.createElement(tag), props); node.append(...children); return node; };
const boxes = [...document.querySelectorAll(".predict")];

function below(box) {
  const found = [];
  let cells = Number(box.dataset.cells);
  for (let node = box.nextElementSibling; node && cells >= 0; node = node.nextElementSibling) {
    if (!node.classList.contains("foretold")) { if (cells <= 0) break; continue; }
    found.push(node);
    if (node.classList.contains("cell")) cells -= 1; else break;
  }
  return found;
}

function truth(box) {
  if (box.dataset.choices) return box.dataset.answer;
  const text = below(box).map((node) => node.textContent).join("\n");
  const [, first, second] = text.match(new RegExp(box.dataset.answer));
  const number = (word) => Number(word.replaceAll(",", ""));
  return second === undefined ? number(first) : number(second) / number(first);
}

const shown = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });
const near = (said, right) => typeof right === "string" || right === 0 ? said === right : said > 0 && Math.max(said / right, right / said) <= 2;

function verdict(said, right, unit) {
  if (said === null) return "Not predicted.";
  if (typeof right === "string") return said === right ? `You said “${said}”, and so it is.` : `You said “${said}”. It is “${right}”.`;
  const is = `You said ${shown(said)}; it is ${shown(right)}${unit ? ` ${unit}` : ""}`;
  const factor = said / right;
  if (!(factor > 0 && factor < Infinity)) return said === right ? `${is}: right.` : `${is}.`;
  if (Math.abs(factor - 1) < 0.05) return `${is}: right, within 5 %.`;
  return factor > 1 ? `${is}: ${shown(factor)} times too high.` : `${is}: ${shown(1 / factor)} times too low.`;
}

function score() {
  const own = Object.values(read()[page] ?? {}).filter((one) => one.said !== null);
  const good = own.filter((one) => one.near).length;
  return own.length ? ` On this page so far: ${good} of ${own.length} predictions right, or within a factor of 2.` : "";
}

function reveal(box, said, status, form) {
  const right = truth(box);
  for (const node of below(box)) node.classList.add("shown");
  form?.remove();
  status.textContent = verdict(said, right, box.dataset.unit) + score();
}

for (const box of boxes) {
  const id = box.dataset.number, status = make("p", { className: "predict-status" });
  status.setAttribute("role", "status");
  const before = read()[page]?.[id];
  if (before) { box.append(status); reveal(box, before.said, status); continue; }
  const form = make("form", { autocomplete: "off" });
  const question = [...box.querySelectorAll("p")].at(-1);
  question.id ||= `predict-${id}`;
  if (box.dataset.choices) {
    const group = make("div", {});
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-labelledby", question.id);
    for (const choice of box.dataset.choices.split("|")) {
      group.append(make("label", {}, make("input", { type: "radio", name: "said", value: choice, required: true }), ` ${choice}`));
    }
    form.append(group);
  } else {
    const input = make("input", { name: "said", type: "number", step: "any", required: true });
    input.setAttribute("aria-labelledby", question.id);
    form.append(input, box.dataset.unit ? ` ${box.dataset.unit} ` : " ");
  }
  const decline = make("button", { type: "button", textContent: "Show it" });
  form.append(make("button", { textContent: "Commit" }), " ", decline);
  const settle = (said) => {
    const all = read();
    (all[page] ??= {})[id] = { said, near: said !== null && near(said, truth(box)) };
    localStorage.setItem(key, JSON.stringify(all));
    reveal(box, said, status, form);
    status.tabIndex = -1;
    status.focus({ preventScroll: true });
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const said = new FormData(form).get("said");
    settle(box.dataset.choices ? said : Number(said));
  });
  decline.addEventListener("click", () => settle(null));
  box.append(form, status);
}
