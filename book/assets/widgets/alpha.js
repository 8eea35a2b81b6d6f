// Ridge regression over alpha: weights shrink, the fit of the training data falls, held-out data have an optimum.
"use strict";
{
  const {range, mean, dot, pearson, uniform, normals, ridge, predict, fixed} = Widgets;
  const FEATURES = 30, TEST = 200, MOST = 240;
  const GRID = range(25).map(i => -2 + i * 0.25); // log10 alpha

  Widgets.define("alpha", {
    title: "Alpha and shrinkage",
    controls: [
      {name: "alpha", label: "Alpha", min: -2, max: 4, step: 0.25, value: -2, show: v => amount(10 ** v)},
      {name: "n", label: "TRs of training data", min: 40, max: MOST, step: 20, value: 40},
      {name: "noise", label: "Standard deviation of the noise (signal: 1)", min: 0.5, max: 4, step: 0.5, value: 2},
      {name: "draw", label: "Draw of the data", min: 1, max: 20, step: 1, value: 1},
    ],
    compute({alpha, n, noise, draw}) {
      const random = uniform(2000 + draw);
      const weights = normals(random, FEATURES), size = Math.sqrt(dot(weights, weights));
      const truth = weights.map(w => w / size); // so that the signal has variance 1
      const rows = count => range(count).map(() => normals(random, FEATURES));
      const [X, held] = [rows(MOST).slice(0, n), rows(TEST)];
      const e = normals(random, MOST).slice(0, n), f = normals(random, TEST);
      const y = predict(X, truth).map((v, i) => v + noise * e[i]);
      const other = predict(held, truth).map((v, i) => v + noise * f[i]);
      const of = log => {
        const w = ridge(X, y, 10 ** log);
        return {
          weights: w, norm: Math.sqrt(dot(w, w)), train: pearson(predict(X, w), y), test: pearson(predict(held, w), other),
        };
      };
      const path = GRID.map(of), best = path.reduce((top, one, i) => one.test > path[top].test ? i : top, 0);
      return {X, y, held, other, truth, path, own: of(alpha), best: GRID[best], grid: GRID};
    },
    panels(found, {alpha}) {
      const order = range(FEATURES).sort((a, b) => found.truth[b] - found.truth[a]);
      const x = {label: "alpha", range: [-2, 4], ticks: [-2, 0, 2, 4].map(v => [v, amount(10 ** v)])};
      const largest = Math.max(0.6, ...order.map(j => Math.abs(found.own.weights[j])));
      return [
        {
          title: "Correlation of prediction and response",
          alt: `Training ${fixed(found.own.train, 2)}, held out ${fixed(found.own.test, 2)} at this alpha.`,
          x, y: {range: [0, 1], ticks: [0, 0.5, 1].map(v => [v, String(v)])},
          marks: [
            {kind: "line", x: GRID, y: found.path.map(one => one.train), colour: 1, name: "training data"},
            {kind: "line", x: GRID, y: found.path.map(one => one.test), colour: 2, name: "held-out data"},
            {kind: "dots", x: [alpha, alpha], y: [found.own.train, found.own.test], colour: 0, name: "this alpha"},
          ],
        },
        {
          title: "Weights of the features, sorted by the true ones",
          alt: `Their length is ${found.own.norm.toFixed(2)}; that of the true weights is 1.`,
          x: {label: "feature", range: [-1, FEATURES], ticks: []},
          y: {range: [-largest, largest], ticks: [-largest, 0, largest].map(v => [v, v.toFixed(1)])},
          marks: [
            {kind: "bars", x: range(FEATURES), y: order.map(j => found.own.weights[j]), width: 6, colour: 2,
              name: "fitted weights"},
            {kind: "dots", x: range(FEATURES), y: order.map(j => found.truth[j]), colour: 0, name: "true weights"},
          ],
        },
      ];
    },
    numbers: found => ({
      "Correlation, training data": fixed(found.own.train, 3),
      "Correlation, held-out data": fixed(found.own.test, 3),
      "Length of the weights (true: 1)": found.own.norm.toFixed(3),
      "Best alpha on these held-out data": amount(10 ** found.best),
    }),
    tell: found => `The fit of the training data is ${fixed(found.own.train, 2)}, that of held-out data ` +
      `${fixed(found.own.test, 2)}. The weights have a length of ${found.own.norm.toFixed(2)}; the true ones have 1.`,
  });

  function amount(value) {
    return String(value >= 10 ? Math.round(value) : Number(value.toPrecision(2)));
  }
}
