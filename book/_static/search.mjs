// The search dialog. Its index, and the code that reads it, are fetched when it first opens.
const PAGES = 10, SECTIONS = 3;
const MARKUP = `
<form method="dialog" class="search-head">
  <label for="search-field">Search the course</label>
  <input id="search-field" type="search" role="combobox" autocomplete="off" autocapitalize="none" spellcheck="false"
    enterkeyhint="go" aria-autocomplete="list" aria-expanded="false" aria-controls="search-results"
    aria-describedby="search-keys">
  <button type="submit" formnovalidate>Close</button>
</form>
<p id="search-keys"><kbd>↑</kbd> <kbd>↓</kbd> to choose, <kbd>Enter</kbd> to go there, <kbd>Esc</kbd> to close</p>
<p id="search-count" role="status"></p>
<div id="search-results" role="listbox" aria-label="Results" hidden></div>`;

let dialog, field, list, count, engine, asked;

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function build() {
  dialog = element("dialog", { className: "search", innerHTML: MARKUP });
  dialog.setAttribute("aria-label", "Search");
  document.body.append(dialog);
  [field, list, count] = ["field", "results", "count"].map((name) => dialog.querySelector(`#search-${name}`));
  field.addEventListener("input", () => (asked = answer(field.value.trim())));
  field.addEventListener("keydown", steer);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("a")) dialog.close();
  });
}

async function load() {
  const pagefind = await import("../pagefind/pagefind.js");
  await pagefind.options({ noWorker: true, excerptLength: 24, ranking: { pageLength: 0.4 } });
  await pagefind.init();
  return pagefind;
}

function open() {
  if (!dialog) build();
  if (dialog.open) return;
  engine ??= load();
  engine.catch(() => {
    engine = undefined;
    count.textContent = "Search could not load. It needs a web server: opened as a file, a page may not read its index.";
  });
  dialog.showModal();
  field.select();
}

// Words that stand side by side, as in the question, count more than the same words far apart.
function weight({ weighted_locations: found }) {
  const at = new Set(found.map(({ location }) => location));
  const beside = ({ location }) => at.has(location - 1) || at.has(location + 1);
  return found.reduce((sum, word) => sum + word.balanced_score * (beside(word) ? 4 : 1), 0);
}

function best(page) {
  return page.sub_results.sort((a, b) => weight(b) - weight(a)).map((section) => ({ ...section, page: page.meta.title }));
}

// Sections that bear the very words as their title come first; the rest as Pagefind ranks their pages.
function rank(words, pages) {
  const named = ({ title }) => title.toLowerCase() === words.toLowerCase();
  const sections = pages.map(best);
  return [...sections.flat().filter(named), ...sections.flatMap((all) => all.filter((one) => !named(one)).slice(0, SECTIONS))];
}

async function answer(words) {
  const found = await (await engine).debouncedSearch(words, {}, 100);
  if (!found || words !== field.value.trim()) return;
  const pages = await Promise.all(found.results.slice(0, PAGES).map((result) => result.data()));
  if (words === field.value.trim()) show(words, pages, found.results.length);
}

function show(words, pages, total) {
  const options = rank(words, pages).map(option);
  options.forEach((link, number) => (link.id = `search-result-${number}`));
  list.replaceChildren(...options);
  list.scrollTop = 0;
  list.hidden = !options.length;
  field.setAttribute("aria-expanded", options.length > 0);
  choose(undefined);
  const results = `${options.length} result${options.length === 1 ? "" : "s"}`;
  const rest = total > PAGES ? `, from the best ${PAGES} of ${total} pages` : "";
  count.textContent = !words ? "" : options.length ? results + rest : `No page has “${words}”. Try fewer or other words.`;
}

function option({ page, title, url, excerpt }) {
  const heading = element("strong", { textContent: title });
  const where = title === page ? [] : [element("span", { className: "search-page", textContent: page })];
  const words = element("span", { innerHTML: excerpt });
  const link = element("a", { href: url, tabIndex: -1 }, heading, " ", ...where, " ", words);
  link.setAttribute("role", "option");
  link.setAttribute("aria-selected", "false");
  return link;
}

function choose(link) {
  list.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
  link?.setAttribute("aria-selected", "true");
  link?.scrollIntoView({ block: "nearest" });
  if (link) field.setAttribute("aria-activedescendant", link.id);
  else field.removeAttribute("aria-activedescendant");
}

async function steer(event) {
  const options = [...list.children];
  const now = options.findIndex((link) => link.ariaSelected === "true");
  if (event.key === "Enter") {
    event.preventDefault();
    await asked;
    (options[now] ?? list.firstElementChild)?.click();
  } else if (options.length && ["ArrowDown", "ArrowUp"].includes(event.key)) {
    event.preventDefault();
    const next = event.key === "ArrowDown" ? now + 1 : now < 0 ? options.length - 1 : now - 1;
    choose(options[next]);
  }
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  const slash = event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey;
  if (slash || (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey))) {
    event.preventDefault();
    open();
  }
});
for (const button of document.querySelectorAll(".search-open")) {
  button.addEventListener("click", open);
  button.dataset.ready = "";
}
