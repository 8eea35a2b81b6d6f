// One ability, two measures: whole answers right or wrong, and the log-probability of the right answer.
"use strict";
{
  const {range, mean, uniform, normals} = Widgets;
  const CHECKPOINTS = 21, MOST = 1000;
  const GRID = range(CHECKPOINTS).map(i => 6 + i * 0.25); // log10 tokens

  Widgets.define("emergence", {
    title: "Metric and emergence",
    controls: [
      {name: "length", label: "Tokens in an answer", min: 1, max: 12, step: 1, value: 6},
      {name: "slope", label: "Gain in log-odds of a token per decade of training", min: 0.5, max: 4, step: 0.5, value: 1.5},
      {name: "items", label: "Items in the test", min: 20, max: MOST, step: 20, value: 100},
      {name: "draw", label: "Draw of the items", min: 1, max: 20, step: 1, value: 1},
    ],
    compute({length, slope, items, draw}) {
      const random = uniform(3000 + draw);
      const easy = normals(random, MOST).slice(0, items), luck = range(MOST).map(() => random()).slice(0, items);
      const found = {grid: GRID, easy, luck, token: [], accuracy: [], logp: []};
      for (const at of GRID) {
        const right = easy.map(offset => 1 / (1 + Math.exp(-(slope * (at - 8) + 0.5 * offset)))); // of one token
        found.token.push(mean(right));
        found.accuracy.push(mean(right.map((p, i) => luck[i] < p ** length ? 1 : 0)));
        found.logp.push(mean(right.map(p => length * Math.log(p))));
      }
      for (const name of ["accuracy", "logp"]) {
        const values = found[name], whole = values[CHECKPOINTS - 1] - values[0];
        const done = values.map(v => whole ? (v - values[0]) / whole : 0);
        found[`${name}Tenth`] = GRID[done.findIndex(v => v >= 0.1)];
      }
      return found;
    },
    panels(found) {
      const x = {label: "training tokens", range: [6, 11], ticks: [[6, "1 M"], [8, "100 M"], [10, "10 B"]]};
      const low = -2 * Math.ceil(-Math.min(...found.logp) / 2);
      return [
        {
          title: "Share of answers that are right in every token",
          alt: `From ${found.accuracy[0].toFixed(2)} to ${found.accuracy[CHECKPOINTS - 1].toFixed(2)}.`,
          x, y: {range: [0, 1], ticks: [0, 0.5, 1].map(v => [v, String(v)])},
          marks: [
            {kind: "line", x: GRID, y: found.token, colour: 0, name: "probability of one right token"},
            {kind: "line", x: GRID, y: found.accuracy, colour: 2},
            {kind: "dots", x: GRID, y: found.accuracy, colour: 2, name: "accuracy of whole answers"},
          ],
        },
        {
          title: "Mean log-probability of the right answer",
          alt: `From ${found.logp[0].toFixed(1)} to ${found.logp[CHECKPOINTS - 1].toFixed(1)}.`,
          x, y: {range: [low, 0], ticks: [low, low / 2, 0].map(v => [v, String(v)])},
          marks: [
            {kind: "line", x: GRID, y: found.logp, colour: 1},
            {kind: "dots", x: GRID, y: found.logp, colour: 1, name: "log-probability"},
          ],
        },
      ];
    },
    numbers: found => ({
      "A tenth of the gain in accuracy is reached at": tokens(found.accuracyTenth),
      "A tenth of the gain in log-probability is reached at": tokens(found.logpTenth),
      "Accuracy at 100 M tokens": found.accuracy[8].toFixed(3),
      "Log-probability at 100 M tokens": found.logp[8].toFixed(2),
    }),
    tell: found => `A tenth of its gain is reached by accuracy at ${tokens(found.accuracyTenth)} tokens, and by ` +
      `log-probability at ${tokens(found.logpTenth)}. It is one model, and it never jumps.`,
  });

  function tokens(log) {
    if (log === undefined) return "none of these checkpoints";
    const value = 10 ** log;
    return value < 9.9e8 ? `${Number((value / 1e6).toPrecision(2))} M` : `${Number((value / 1e9).toPrecision(2))} B`;
  }
}
