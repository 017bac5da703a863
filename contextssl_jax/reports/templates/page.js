const next = { none: "ascending", ascending: "descending", descending: "none" };
const { compare } = new Intl.Collator("en", { numeric: true });
for (const table of document.querySelectorAll("table")) {
  const rows = [...table.tBodies[0].rows];  // the original order, also among equal values
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => header.firstElementChild.addEventListener("click", () => {
    const order = next[header.getAttribute("aria-sort")];
    headers.forEach((h) => h.setAttribute("aria-sort", h === header ? order : "none"));
    const numeric = header.classList.contains("number");
    const text = (row) => row.cells[column].textContent;
    const number = (row) => Number(row.cells[column].dataset.value);
    const missing = (row) => (numeric ? Number.isNaN(number(row)) : text(row) === "–");
    const rising = (a, b) => (numeric ? number(a) - number(b) : compare(text(a), text(b)));
    const known = rows.filter((row) => !missing(row));
    known.sort(order === "ascending" ? rising : (a, b) => rising(b, a));
    const sorted = [...known, ...rows.filter(missing)];
    table.tBodies[0].append(...(order === "none" ? rows : sorted));
  }));
}
// Folded parts are printed too.
const folded = [...document.querySelectorAll("details")];
let opened = [];
addEventListener("beforeprint", () => {
  opened = folded.filter((part) => !part.open);
  opened.forEach((part) => { part.open = true; });
});
addEventListener("afterprint", () => opened.forEach((part) => { part.open = false; }));
