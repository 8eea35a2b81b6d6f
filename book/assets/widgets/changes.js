// Change points in curves of pure noise: the search and the BIC of phaselab.phases.fit, with up to two change points.
"use strict";
{
  const {range, dot, uniform, autocorrelated} = Widgets;
  const CURVES = 200;

  const less = (vector, basis) => basis.reduce((rest, unit) => {
    const along = dot(rest, unit);
    return rest.map((v, i) => v - along * unit[i]);
  }, vector);
  const unit = vector => { const size = Math.sqrt(dot(vector, vector)); return vector.map(v => v / size); };

  // All sets of 0, 1 and 2 change points among the inner checkpoints, each with the unit vectors that it adds.
  function sets(n) {
    const x = range(n).map(i => i / (n - 1)), inner = range(n - 4).map(i => i + 2);
    const base = [unit(x.map(() => 1))];
    base.push(unit(less(x, base)));
    const hinge = k => x.map(v => Math.max(v - x[k], 0));
    const one = inner.map(k => ({knots: [k], added: unit(less(hinge(k), base))}));
    const two = one.flatMap((first, i) => inner.slice(i + 1).map(k => ({
      knots: [inner[i], k], parent: i, added: unit(less(hinge(k), [...base, first.added])),
    })));
    return {x, base, one, two};
  }

  // Residual sum of squares and best change points for 0, 1 and 2 of them.
  function search(grid, curve) {
    const rest = less(curve, grid.base), total = dot(rest, rest);
    const gains = grid.one.map(set => dot(rest, set.added) ** 2);
    const both = grid.two.map(set => gains[set.parent] + dot(rest, set.added) ** 2);
    const top = values => values.reduce((best, v, i) => v > values[best] ? i : best, 0);
    const [a, b] = [top(gains), top(both)];
    return [
      {rss: total, knots: []},
      {rss: Math.max(total - gains[a], 0), knots: grid.one[a].knots},
      {rss: Math.max(total - both[b], 0), knots: grid.two[b].knots},
    ];
  }

  const bic = (rss, n, changes, penalty) => n * Math.log(rss / n) + n + (2 + penalty * changes) * Math.log(n);

  // Heights of the fit at all checkpoints: what the chosen hinges explain.
  function fitted(grid, curve, knots) {
    const basis = [...grid.base];
    for (const k of knots) basis.push(unit(less(grid.x.map(v => Math.max(v - grid.x[k], 0)), basis)));
    const rest = less(curve, basis);
    return curve.map((v, i) => v - rest[i]);
  }

  Widgets.define("changes", {
    title: "Change points on noise",
    controls: [
      {name: "penalty", label: "Parameters that a change point costs in BIC", min: 0, max: 6, step: 0.5, value: 1},
      {name: "n", label: "Checkpoints", min: 10, max: 28, step: 1, value: 20},
      {name: "rho", label: "Correlation of neighbouring checkpoints' noise", min: 0, max: 0.9, step: 0.1, value: 0},
      {name: "shown", label: "Curve drawn", min: 1, max: CURVES, step: 1, value: 1},
    ],
    compute({penalty, n, rho}) {
      const random = uniform(4000), grid = sets(n);
      const curves = range(CURVES).map(() => autocorrelated(random, n, rho));
      const found = curves.map(curve => {
        const fits = search(grid, curve), cost = fits.map((fit, k) => bic(fit.rss, n, k, penalty));
        return {rss: fits.map(fit => fit.rss), knots: fits[cost.indexOf(Math.min(...cost))].knots};
      });
      return {grid, curves, found, share: found.filter(one => one.knots.length).length / CURVES};
    },
    panels({grid, curves, found}, {n, shown}) {
      const curve = curves[shown - 1], knots = found[shown - 1].knots, line = fitted(grid, curve, knots), x = range(n);
      return [{
        title: `Curve ${shown} of ${CURVES}: noise, and what is fitted to it`,
        alt: knots.length ? `Change points at checkpoints ${knots.map(k => k + 1).join(" and ")}.` : "No change point.",
        x: {label: "checkpoint", range: [0, n - 1], ticks: [0, n - 1].map(v => [v, String(v + 1)])},
        y: {range: [-3, 3], ticks: [-2, 0, 2].map(v => [v, String(v)])},
        marks: [
          {kind: "dots", x, y: curve, colour: 0, name: "noise"},
          {kind: "line", x, y: line, colour: 2, name: "chosen fit"},
          {kind: "dots", x: knots, y: knots.map(k => line[k]), colour: 1, name: "change points"},
        ],
      }];
    },
    numbers: ({share, found}, {shown}) => ({
      "Curves of noise with a change point": `${(100 * share).toFixed(1)} %`,
      "Change points in the curve drawn": String(found[shown - 1].knots.length),
    }),
    tell: ({share}, {penalty, rho}) => `None of these ${CURVES} curves has a change point. At a cost of ${penalty} ` +
      `parameter${penalty === 1 ? "" : "s"}, and with neighbours correlated at ${rho}, one is "found" in ${(100 * share).toFixed(0)} % of them.`,
  });
}
