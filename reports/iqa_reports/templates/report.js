"use strict";
// Sorting, filtering, opening of models, looking at images. Without this script everything is shown and nothing is lost.
(() => {
  const cellAt = (row, column) => row.cells[column];
  const valueOf = (cell) => {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.matches(".missing, .undefined") ? null : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };

  // Sorting: what has no value stays last in both directions.
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headings = [...table.querySelectorAll("th[data-column]")];
    for (const heading of headings) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const column = Number(heading.dataset.column);
        const before = heading.getAttribute("aria-sort");
        const numeric = heading.classList.contains("right");
        const firstWay = numeric ? "descending" : "ascending";
        const way = before === null ? firstWay : before === "ascending" ? "descending" : "ascending";
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", way);
        const sign = way === "ascending" ? 1 : -1;
        const keyed = original.map((row) => [valueOf(cellAt(row, column)), row]);
        keyed.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          return sign * compare(a, b);
        });
        body.append(...keyed.map(([, row]) => row));
      });
    }
  }

  // Filtering: both leaderboards of a section and its model panels follow one pair of fields.
  for (const filters of document.querySelectorAll("[data-filters]")) {
    filters.hidden = false;
    const text = filters.querySelector('[data-filter="text"]');
    const verdict = filters.querySelector('[data-filter="verdict"]');
    const count = filters.querySelector(".count");
    const section = filters.closest("section");
    const apply = () => {
      const wanted = text.value.trim().toLowerCase();
      const shown = new Set();
      let total = 0;
      for (const table of section.querySelectorAll("table")) {
        for (const row of table.tBodies[0].rows) {
          const head = row.querySelector("th");
          const words = [...row.cells].map((cell) => cell.textContent.trim());
          const fits =
            head.textContent.toLowerCase().includes(wanted) &&
            (verdict.value === "" || words.includes(verdict.value));
          row.hidden = !fits;
          const link = head.querySelector("a");
          if (link) {
            const panel = document.getElementById(link.dataset.opens);
            if (panel) panel.hidden = !fits;
          }
          if (fits) shown.add(head.textContent);
        }
        total = Math.max(total, table.tBodies[0].rows.length);
      }
      count.textContent = `${shown.size} of ${total} models`;
    };
    text.addEventListener("input", apply);
    verdict.addEventListener("change", apply);
    apply();
  }

  // Images: original, attacked and difference in one place, so that the eye sees what changes.
  const button = (words, press) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.addEventListener("click", press);
    return made;
  };
  for (const shot of document.querySelectorAll(".shot")) {
    const pictures = [...shot.querySelectorAll(".three > div")];
    const looks = document.createElement("div");
    looks.className = "looks";
    const show = (place) => {
      pictures.forEach((picture, i) => (picture.hidden = i !== place));
      [...looks.children].slice(0, 3).forEach((look, i) => look.setAttribute("aria-pressed", i === place));
    };
    looks.append(...["original", "attacked", "difference"].map((words, i) => button(words, () => show(i))));
    const enlarge = button("enlarge", () => {
      shot.classList.toggle("large");
      enlarge.setAttribute("aria-pressed", shot.classList.contains("large"));
    });
    enlarge.setAttribute("aria-pressed", shot.classList.contains("large"));
    looks.append(enlarge);
    shot.prepend(looks);
    shot.classList.add("one");
    show(1);
  }
  for (const filters of document.querySelectorAll("[data-shots]")) {
    filters.hidden = false;
    const [distortion, way, change] = ["distortion", "way", "change"].map((name) =>
      filters.querySelector(`[data-filter="${name}"]`),
    );
    const shots = [...filters.nextElementSibling.children];
    const apply = () => {
      for (const shot of shots) {
        const moved = Number(shot.dataset.change);
        const fits =
          (distortion.value === "" || shot.dataset.distortion === distortion.value) &&
          (way.value === "" || moved * Number(way.value) > 0) &&
          Math.abs(moved) >= Number(change.value);
        shot.hidden = !fits;
      }
      filters.querySelector(".count").textContent =
        `${shots.filter((shot) => !shot.hidden).length} of ${shots.length} images`;
    };
    filters.addEventListener("input", apply);
    apply();
  }

  // Opening: a link to a model opens its panel and moves the focus there; so does an address with its name.
  const open = (id) => {
    const panel = document.getElementById(id);
    if (!(panel instanceof HTMLDetailsElement)) return false;
    panel.open = true;
    panel.querySelector("summary").focus();
    panel.scrollIntoView();
    return true;
  };
  for (const link of document.querySelectorAll("a[data-opens]")) {
    link.addEventListener("click", (event) => {
      if (!open(link.dataset.opens)) return;
      event.preventDefault();
      history.replaceState(null, "", `#${link.dataset.opens}`);
    });
  }
  if (location.hash) open(location.hash.slice(1));
})();
