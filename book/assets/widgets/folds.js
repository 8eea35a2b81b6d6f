// A model that knows no stimulus, with contiguous and with shuffled folds: phaselab.encoding.folds.autocorrelation_only.
"use strict";
{
  const {range, mean, pearson, uniform, autocorrelated, fixed} = Widgets;
  const TRS = 200, FOLDS = 5, VOXELS = 12, WIDTH = 1.5, SHOWN = 60;

  // Like numpy.array_split: the first of them are one longer where they cannot all be equal.
  const parts = order => range(FOLDS).map(k => {
    const at = j => j * Math.floor(TRS / FOLDS) + Math.min(j, TRS % FOLDS);
    return order.slice(at(k), at(k + 1));
  });

  function shuffle(draw) {
    const order = range(TRS);
    for (let i = TRS - 1; i > 0; i--) {
      const j = Math.floor(draw() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  const without = (test, gap, stretch) => {
    const own = new Set(test);
    const far = t => t < test[0] - gap || t > test[test.length - 1] + gap;
    return range(TRS).filter(t => stretch ? far(t) : !own.has(t));
  };

  function guess(series, train, test) {
    const centre = mean(train.map(t => series[t]));
    return test.map(t => {
      let weights = 0, total = 0;
      for (const s of train) {
        const apart = Math.abs(t - s);
        if (apart > 4 * WIDTH) continue;
        const weight = Math.exp(-((apart / WIDTH) ** 2) / 2);
        weights += weight;
        total += weight * (series[s] - centre);
      }
      return centre + total / (1 + weights);
    });
  }

  Widgets.define("folds", {
    title: "Folds and leakage",
    controls: [
      {name: "rho", label: "Correlation of neighbouring TRs", min: 0, max: 0.95, step: 0.05, value: 0.8},
      {name: "gap", label: "Gap beside each contiguous test stretch, TRs", min: 0, max: 12, step: 1, value: 6},
      {name: "shown", label: "Folds drawn", options: ["shuffled", "contiguous"], value: "shuffled"},
      {name: "draw", label: "Draw of the noise", min: 1, max: 20, step: 1, value: 1},
    ],
    compute({rho, gap, draw}) {
      const random = uniform(1000 + draw);
      const voxels = range(VOXELS).map(() => autocorrelated(random, TRS, rho));
      const tests = {contiguous: parts(range(TRS)), shuffled: parts(shuffle(random)).map(p => p.sort((a, b) => a - b))};
      const found = {voxels, scores: {}, folds: {}, guesses: {}};
      for (const [kind, all] of Object.entries(tests)) {
        const folds = all.map(test => ({test, train: without(test, gap, kind === "contiguous")}));
        const guesses = voxels.map(series => folds.map(fold => guess(series, fold.train, fold.test)));
        found.scores[kind] = mean(voxels.map((series, v) =>
          mean(folds.map((fold, k) => pearson(guesses[v][k], fold.test.map(t => series[t]))))));
        found.folds[kind] = folds;
        found.guesses[kind] = guesses[0];
      }
      return found;
    },
    panels(found, {shown}) {
      const series = found.voxels[0], folds = found.folds[shown], guessed = [];
      folds.forEach((fold, k) => fold.test.forEach((t, i) => { guessed[t] = found.guesses[shown][k][i]; }));
      const seen = range(SHOWN), test = folds[0].test.filter(t => t < SHOWN);
      const bars = ["shuffled", "contiguous"], low = Math.min(0, ...bars.map(kind => found.scores[kind]));
      return [
        {
          title: `Noise in one voxel, first ${SHOWN} TRs, ${shown} folds`,
          alt: `The guess of each TR comes from training TRs near to it in time.`,
          x: {label: "TR", range: [0, SHOWN - 1], ticks: [0, 20, 40, 59].map(t => [t, String(t)])},
          y: {range: [-3, 3], ticks: [-2, 0, 2].map(v => [v, String(v)])},
          marks: [
            {kind: "line", x: seen, y: seen.map(t => series[t]), colour: 0, name: "noise"},
            {kind: "line", x: seen, y: seen.map(t => guessed[t]), colour: 2, name: "guess, each TR when it is tested"},
            {kind: "dots", x: test, y: test.map(t => series[t]), colour: 1, name: "TRs of the first test fold"},
          ],
        },
        {
          title: `Mean correlation over ${VOXELS} voxels of noise`,
          alt: bars.map(kind => `${kind} ${fixed(found.scores[kind], 2)}`).join(", "),
          x: {label: "folds", range: [-0.6, 1.6], ticks: bars.map((kind, i) => [i, kind])},
          y: {range: [low, 1], ticks: [0, 0.5, 1].map(v => [v, String(v)])},
          marks: [{kind: "bars", x: [0, 1], y: bars.map(kind => found.scores[kind]), width: 60, colour: 2}],
        },
      ];
    },
    numbers: found => ({
      "Correlation, shuffled folds": fixed(found.scores.shuffled, 3),
      "Correlation, contiguous folds": fixed(found.scores.contiguous, 3),
    }),
    tell(found, {rho, gap}) {
      const {shuffled, contiguous} = found.scores;
      return `There is no stimulus here. With neighbours correlated at ${rho}, shuffled folds give ` +
        `${fixed(shuffled, 2)}; contiguous folds with a gap of ${gap} TRs give ${fixed(contiguous, 2)}.`;
    },
  });
}
