// Marks that assistive technology needs and that can only be known once a page is laid out.

// A box that scrolls must be reachable with the keyboard; one that does not scroll should not be a stop.
function markScrollingBoxes() {
  const boxes = "pre, .cell_output .output, div.math .formula, article figure, .pst-scrollable-table-container";
  for (const box of document.querySelectorAll(boxes)) {
    const scrolls = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
    if (scrolls) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
    const hint = () => box.toggleAttribute("data-more", box.scrollWidth > box.clientWidth + box.scrollLeft + 4);
    box.onscroll = hint;
    hint();
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

// Over a figure in three dimensions the wheel scrolls the page, as everywhere; with Ctrl it zooms the figure.
function letWheelScroll() {
  for (const figure of document.querySelectorAll(".plotly-graph-div")) {
    figure.addEventListener("wheel", event => event.ctrlKey || event.stopPropagation(), { capture: true, passive: true });
  }
}

// Figures are drawn before the dark theme puts a margin around them, and columns take a moment to get their width. A
// camera sees as much to the sides as its window is wider than high: on a phone the ends of a cortex would be cut off.
function fit(figure) {
  const { margin, width: drawn, height: high } = figure._fullLayout;
  const highest = Number(figure.dataset.height ??= high);
  const width = figure.clientWidth;
  const wide = (width - margin.l - margin.r) / 1.4 + margin.t + margin.b;
  const height = figure.layout.scene ? Math.round(Math.min(highest, wide)) : highest;
  if (drawn === width && high === height) return;
  figure.style.height = `${height}px`;
  Plotly.relayout(figure, { width, height });
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
  letWheelScroll();
  markScrollingBoxes();
  window.addEventListener("resize", markScrollingBoxes);
  const sizes = new ResizeObserver(entries => requestAnimationFrame(() => entries.forEach(entry => fit(entry.target))));
  for (const figure of document.querySelectorAll(".js-plotly-plot")) {
    figure.on("plotly_afterplot", markScrollingBoxes);
    sizes.observe(figure);
  }
});
