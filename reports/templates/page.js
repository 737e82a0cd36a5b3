"use strict";

// Tables sort by their headings: ascending, descending, as it was. Empty cells stay last.
const EMPTY = "—";
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const NUMBER = /^([+-]?)((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?|∞)(?:\s×\s10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?(?=$|[\s(±%–°])/;
const words = new Intl.Collator("en", { numeric: true });

function textOf(cell) {
  const note = cell.querySelector("small");
  return cell.textContent.slice(0, note ? -note.textContent.length : undefined).trim();
}

function numberOf(text) {
  const found = NUMBER.exec(text.replaceAll("\u2212", "-"));
  if (!found) return NaN;
  const size = found[2] === "∞" ? Infinity : Number(found[2].replaceAll(",", ""));
  const power = (found[3] || "").replace(/./g, (c) => (c === "⁻" ? "-" : SUPERSCRIPTS.indexOf(c)));
  return (found[1] === "-" ? -1 : 1) * size * 10 ** Number(power);
}

function sortBy(table, place, direction) {
  const body = table.tBodies[0];
  const lines = [...body.rows].map((row) => ({ row, text: textOf(row.cells[place]) }));
  const full = lines.filter((line) => line.text && line.text !== EMPTY);
  const empty = lines.filter((line) => !full.includes(line));
  const numbers = new Map(full.map((line) => [line, numberOf(line.text)]));
  const numeric = [...numbers.values()].every((number) => !Number.isNaN(number));
  const compare = (a, b) =>
    numeric ? Math.sign(numbers.get(a) - numbers.get(b)) || 0 : words.compare(a.text, b.text);
  full.sort((a, b) => direction * compare(a, b));
  body.append(...[...full, ...empty].map((line) => line.row));
}

function makeSortable(table) {
  const original = [...table.tBodies[0].rows];
  const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  if (original.length < 2) return;
  headings.forEach((heading, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "" }[heading.ariaSort || ""] ?? "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      table.tBodies[0].append(...original);
      if (!next) return;
      heading.setAttribute("aria-sort", next);
      sortBy(table, place, next === "ascending" ? 1 : -1);
    });
  });
}

// Figures enlarge in a dialog, which Escape closes.
const dialog = document.createElement("dialog");
const close = document.createElement("button");
const stage = document.createElement("div");
const caption = document.createElement("p");
let opener = null;

function enlarge(image, button) {
  const large = document.createElement("img");
  large.src = image.src;
  large.alt = image.alt;
  stage.replaceChildren(large);
  caption.textContent = image.closest("figure").querySelector("figcaption").textContent;
  dialog.setAttribute("aria-label", button.getAttribute("aria-label").replace("Enlarge figure", "Enlarged figure"));
  opener = button;
  dialog.showModal();
  close.focus();
}

function makeLarge(image) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Enlarge";
  button.className = "enlarge";
  button.setAttribute("aria-label", `Enlarge figure: ${image.closest("section").querySelector("h2, h3, h4, h5").textContent}`);
  button.addEventListener("click", () => enlarge(image, button));
  image.addEventListener("click", () => enlarge(image, button));
  image.after(button);
}

close.type = "button";
close.textContent = "Close";
close.addEventListener("click", () => dialog.close());
stage.className = "stage";
stage.tabIndex = 0;
dialog.append(close, stage, caption);
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => opener.focus());
document.body.append(dialog);
document.querySelectorAll("table").forEach(makeSortable);
document.querySelectorAll("figure > img").forEach(makeLarge);

// The contents show where one is, and paper shows what was folded.
const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  const entered = entries.filter((entry) => entry.isIntersecting).pop();
  if (!entered) return;
  links.forEach((link) => link.removeAttribute("aria-current"));
  links.get(entered.target.id).setAttribute("aria-current", "true");
}, { rootMargin: "0px 0px -80% 0px" });
links.forEach((_, id) => seen.observe(document.getElementById(id)));
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  unfolded.forEach((part) => { part.open = true; });
});
addEventListener("afterprint", () => unfolded.forEach((part) => { part.open = false; }));
