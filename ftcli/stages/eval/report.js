// Tables of the class "sortable" get a button in each column head that has data-sort; how they are sorted stands in the address.
(() => {
  "use strict";
  const tables = [...document.querySelectorAll("table.sortable")];

  function key(row, column) {
    const cell = row.cells[column];
    const text = "order" in cell.dataset ? cell.dataset.order : cell.textContent.trim();
    return text === "" ? null : text;
  }

  function compare(left, right) {
    const numbers = [Number(left), Number(right)];
    return numbers.some(Number.isNaN) ? left.localeCompare(right) : numbers[0] - numbers[1];
  }

  // What has no key stays at the end in either direction.
  function sort(table, column, direction) {
    const sign = direction === "descending" ? -1 : 1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
    body.append(...rows.map(([, row]) => row));
    for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
    table.tHead.rows[0].cells[column].setAttribute("aria-sort", direction);
  }

  function click(table, head) {
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    sort(table, head.cellIndex, direction);
    history.replaceState(null, "", `#sort=${table.id},${head.cellIndex},${direction}`);
  }

  for (const table of tables) {
    for (const head of table.tHead.rows[0].cells) {
      if (!("sort" in head.dataset)) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => click(table, head));
      head.append(button);
    }
  }

  const asked = /^#sort=([\w-]+),(\d+),(ascending|descending)$/.exec(location.hash);
  const table = asked && tables.find((one) => one.id === asked[1]);
  if (table && "sort" in (table.tHead.rows[0].cells[asked[2]]?.dataset ?? {})) sort(table, Number(asked[2]), asked[3]);
})();
