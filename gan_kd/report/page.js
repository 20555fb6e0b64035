// Tables that sort and pictures that enlarge. Without this script the page is whole, in the order it was written in.
"use strict";

const UNITS = { k: 1e3, M: 1e6, G: 1e9 };
const MISSING = /^(–|not |no |$)/;

// The number that a cell begins with, as in "3.21 M" or "−0.2 [−3.0, +2.6]"; null in "3a58" or "3: 1, 2".
function numberOf(text) {
  const found = /^([+−-]?\d+(?:\.\d+)?)(?: ([kMG]))?(?![\w.:])/.exec(text);
  return found && Number(found[1].replace("−", "-")) * (UNITS[found[2]] || 1);
}

// Rows by one column: numbers from the largest first, text from A, the other way round from then on. Cells without
// a value stay last, and the rows of the table's foot where they are.
function sort(table, header) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => {
    const text = row.cells[header.cellIndex].textContent.trim();
    return { row, text, number: numberOf(text), missing: MISSING.test(text) };
  });
  const numbers = rows.some((row) => row.number !== null) && rows.every((row) => row.number !== null || row.missing);
  const before = header.getAttribute("aria-sort");
  const ascending = before ? before === "descending" : !numbers;
  rows.sort((one, other) => {
    if (one.missing !== other.missing) return one.missing - other.missing;
    if (one.missing) return 0;
    const order = numbers ? one.number - other.number : one.text.localeCompare(other.text, "en", { numeric: true });
    return ascending ? order : -order;
  });
  body.append(...rows.map((row) => row.row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
}

function button(content, title) {
  const made = document.createElement("button");
  made.type = "button";
  made.title = title;
  made.append(...content);
  return made;
}

for (const header of document.querySelectorAll("thead th")) {
  const table = header.closest("table");
  if (table.tBodies[0].rows.length > 1 && header.textContent) {
    const made = button(header.childNodes, "Sort by this column");
    header.append(made);
    made.addEventListener("click", () => sort(table, header));
  }
}

// One dialog for all pictures. The browser itself closes it at Escape and gives the focus back.
const dialog = document.createElement("dialog");
const large = new Image();
dialog.append(button(["Close"], "Close (Escape)"), large);
dialog.addEventListener("click", () => dialog.close());
document.body.append(dialog);

for (const image of document.querySelectorAll("figure img")) {
  const place = image.parentNode;
  const made = button([image], "Enlarge");
  made.className = "zoom";
  made.setAttribute("aria-haspopup", "dialog");
  made.addEventListener("click", () => {
    large.src = image.src;
    large.alt = image.alt;
    large.className = image.className;
    dialog.setAttribute("aria-label", image.alt);
    dialog.showModal();
  });
  place.append(made);
}

// A box that scrolls can be reached by the keyboard and is called after its section.
function markScrolling() {
  let section = "";
  for (const part of document.querySelectorAll("h2, .wide")) {
    if (part.matches("h2")) section = part.id;
    else if (part.scrollWidth > part.clientWidth) {
      part.tabIndex = 0;
      part.setAttribute("role", "region");
      part.setAttribute("aria-labelledby", section);
    } else for (const name of ["tabindex", "role", "aria-labelledby"]) part.removeAttribute(name);
  }
}

addEventListener("resize", markScrolling);
markScrolling();
