// Widgets. The site's own Python made each form and its first result when the site was built; once a widget is in sight
// or touched, MicroPython runs the same files here, and every change of a field is answered by them.
const LOADS_AHEAD = "300px", PAUSE_MS = 60, HEAP_BYTES = 8 << 20;

let python;

async function load() {
  const [{ loadMicroPython }, files] = await Promise.all([
    import("./micropython.mjs"),
    fetch(new URL("calc.json", import.meta.url)).then((answer) => answer.json()),
  ]);
  const { FS, globals, runPython } = await loadMicroPython({ heapsize: HEAP_BYTES });
  for (const [path, text] of Object.entries(files)) {
    FS.mkdirTree(`/lib/${path}`.replace(/\/[^/]*$/, ""));
    FS.writeFile(`/lib/${path}`, text);
  }
  runPython("from llminfra.web.widgets import answer");
  return globals.get("answer");
}

class Widget {
  constructor(root) {
    this.root = root;
    this.name = root.dataset.widget;
    this.key = root.id.replace(/-widget$/, "");
    this.error = root.querySelector(".widget-error");
    this.result = root.querySelector(".widget-result");
    this.fields = [...root.querySelectorAll("select, input")];
    this.defaults = this.values();
    this.recall();
    root.querySelector("fieldset").disabled = false;
    root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    root.addEventListener("input", ({ target }) => {
      this.touched = target;
      this.tell();
      clearTimeout(this.pause);
      this.pause = setTimeout(() => this.update(), PAUSE_MS);
    });
    const start = () => {
      seen.disconnect();
      root.removeEventListener("focusin", start);
      this.update();
    };
    const seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && start(), {
      rootMargin: LOADS_AHEAD,
    });
    seen.observe(root);
    root.addEventListener("focusin", start);
  }

  values() {
    return Object.fromEntries(this.fields.map(({ name, value }) => [name, value]));
  }

  // Values that an address gives: `?planner.gpu=t4`. What a field cannot hold is left at its default.
  recall() {
    const given = new URLSearchParams(location.search);
    for (const field of this.fields) {
      const value = given.get(`${this.key}.${field.name}`);
      if (value === null) continue;
      field.value = value;
      if (field.value !== value) field.value = this.defaults[field.name];
    }
    this.tell();
  }

  remember(values) {
    const address = new URL(location.href);
    for (const [name, value] of Object.entries(values)) {
      if (value === this.defaults[name]) address.searchParams.delete(`${this.key}.${name}`);
      else address.searchParams.set(`${this.key}.${name}`, value);
    }
    if (address.href !== location.href) history.replaceState(history.state, "", address);
  }

  // A slider says where it stands.
  tell() {
    for (const output of this.root.querySelectorAll(".widget-field output")) output.value = output.previousElementSibling.value;
  }

  async update() {
    const values = this.values();
    this.remember(values);
    python ??= load();
    let answer;
    try {
      answer = await python;
    } catch (error) {
      python = undefined;
      this.refuse("This widget could not load what it computes with: check the connection, then change a value again");
      throw error;
    }
    const start = performance.now();
    let html, error;
    try {
      ({ html, error } = JSON.parse(answer(JSON.stringify({ name: this.name, values: this.values() }))));
    } catch (fault) {
      this.refuse("This widget failed to compute a result for these values: change one of them");
      throw fault;
    }
    performance.measure(`widget ${this.name}`, { start });
    if (error) this.refuse(error);
    else this.show(html);
    this.root.dataset.ready = "";
  }

  // Only the summary is announced, so it stays the same element; what follows it is replaced.
  show(html) {
    const made = document.createElement("template");
    made.innerHTML = html;
    const [told, ...rest] = made.content.children;
    const summary = this.result.firstElementChild;
    if (summary.textContent !== told.textContent) summary.textContent = told.textContent;
    while (summary.nextSibling) summary.nextSibling.remove();
    summary.after(...rest);
    this.refuse("");
  }

  // The last good result stays; the field that was changed last is the one at fault.
  refuse(words) {
    this.error.hidden = !words;
    this.error.textContent = words && `${words}. Below is still the last result.`;
    for (const field of this.fields) field.setAttribute("aria-invalid", !!words && field === this.touched);
  }
}

for (const root of document.querySelectorAll(".widget")) new Widget(root);
