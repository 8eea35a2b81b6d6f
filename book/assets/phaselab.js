// Marks that assistive technology needs and that can only be known once a page is laid out.

// A box that scrolls must be reachable with the keyboard; one that does not scroll should not be a stop.
function markScrollingBoxes() {
  const boxes = "pre, .cell_output .output, div.math .formula, article figure, .pst-scrollable-table-container";
  for (const box of document.querySelectorAll(boxes)) {
    const scrolls = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
    if (scrolls) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
  }
}

// Plotly draws into a div without a name; its text stands in the figure's own layout (layout.meta.alt).
function nameInteractiveFigures() {
  for (const figure of document.querySelectorAll(".plotly-graph-div")) {
    const text = figure.layout?.meta?.alt;
    if (text) {
      figure.setAttribute("role", "group");
      figure.setAttribute("aria-label", text);
    }
  }
}

// The theme's arrows that open a part of the contents have no name.
function nameArrows() {
  for (const arrow of document.querySelectorAll(".bd-sidebar-primary summary")) {
    const page = arrow.closest("li")?.querySelector("a")?.textContent.trim();
    arrow.setAttribute("aria-label", `Pages below ${page}`);
  }
}

window.addEventListener("load", () => {
  nameArrows();
  nameInteractiveFigures();
  markScrollingBoxes();
  window.addEventListener("resize", markScrollingBoxes);
});
