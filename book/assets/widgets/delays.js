// The slow blood: a canonical response, a listener who is earlier or later, and delayed copies that find the shape.
"use strict";
{
  const {range, sum, pearson, uniform, normals, ridge, predict, fixed} = Widgets;
  const SECONDS = 32, FINE = 64, LENGTH = 1200, ALPHA = 1; // seconds of the response and of the recording

  const factorial = k => range(k).reduce((product, i) => product * (i + 1), 1);
  const gamma = (t, shape) => t > 0 ? t ** (shape - 1) * Math.exp(-t) / factorial(shape - 1) : 0;

  // SPM's double gamma as nilearn has it, summed within each TR; first weight 0, sum 1: phaselab.stimuli.hrf.
  function response(tr, delay) {
    const step = tr / FINE, n = Math.round(SECONDS / step);
    const at = range(n).map(i => i * SECONDS / (n - 1) - delay - step);
    const fine = at.map(t => gamma(t, 6) - 0.167 * gamma(t, 16));
    const weights = [0, ...range(Math.ceil(n / FINE)).map(k => sum(fine.slice(k * FINE, (k + 1) * FINE)))];
    const total = sum(weights);
    return weights.map(w => w / total);
  }

  const convolve = (series, weights) => series.map((_, t) =>
    sum(weights.slice(0, t + 1).map((weight, lag) => weight * series[t - lag])));
  const scaled = values => { const size = Math.sqrt(sum(values.map(v => v * v)) / values.length); return values.map(v => v / size); };

  Widgets.define("delays", {
    title: "Delays and the haemodynamic response",
    controls: [
      {name: "later", label: "How much later than the canonical response the listener is, s", min: -2, max: 3, step: 0.5,
        value: 2},
      {name: "tr", label: "TR, s", min: 1, max: 3, step: 0.5, value: 2},
      {name: "first", label: "First delay, TRs", min: 0, max: 4, step: 1, value: 1},
      {name: "count", label: "Number of delays", min: 1, max: 8, step: 1, value: 4},
      {name: "noise", label: "Standard deviation of the noise (signal: 1)", min: 0, max: 3, step: 0.5, value: 1},
    ],
    compute({later, tr, first, count, noise}) {
      const random = uniform(5000), n = Math.round(LENGTH / tr), half = Math.floor(n / 2);
      const words = normals(random, n), e = normals(random, n); // how much more is said than on average
      const canonical = response(tr, 0), own = response(tr, later);
      const y = scaled(convolve(words, own)).map((v, t) => v + noise * e[t]);
      const delays = range(count).map(i => first + i);
      const copies = words.map((_, t) => delays.map(delay => t >= delay ? words[t - delay] : 0));
      const fixed = convolve(words, canonical);
      const weights = ridge(copies.slice(0, half), y.slice(0, half), ALPHA);
      return {
        words, y, half, canonical, own, delays, weights, copies, fixed,
        stacked: pearson(predict(copies.slice(half), weights), y.slice(half)),
        one: pearson(fixed.slice(half), y.slice(half)),
      };
    },
    panels(found, {tr}) {
      const peak = Math.max(...found.own), most = Math.max(...found.weights.map(Math.abs));
      const seconds = range(found.own.length).map(k => k * tr);
      const bars = [["canonical", found.one], ["delayed copies", found.stacked]];
      return [
        {
          title: "Response to one moment of speech, highest point set to 1",
          alt: `The listener's response peaks after ${tr * found.own.indexOf(peak)} s.`,
          x: {label: "seconds after it", range: [0, 30], ticks: [0, 10, 20, 30].map(v => [v, String(v)])},
          y: {range: [-0.6, 1.1], ticks: [0, 1].map(v => [v, String(v)])},
          marks: [
            {kind: "line", x: seconds, y: found.canonical.map(w => w / Math.max(...found.canonical)), colour: 0,
              name: "canonical"},
            {kind: "line", x: seconds, y: found.own.map(w => w / peak), colour: 1, name: "this listener"},
            {kind: "dots", x: found.delays.map(d => d * tr), y: found.weights.map(w => w / most), colour: 2,
              name: "weights of the delayed copies"},
          ],
        },
        {
          title: "Correlation in the second half, which was not fitted",
          alt: bars.map(([name, r]) => `${name} ${fixed(r, 2)}`).join(", "),
          x: {label: "features", range: [-0.6, 1.6], ticks: bars.map(([name], i) => [i, name])},
          y: {range: [Math.min(0, ...bars.map(([, r]) => r)), 1], ticks: [0, 0.5, 1].map(v => [v, String(v)])},
          marks: [{kind: "bars", x: [0, 1], y: bars.map(([, r]) => r), width: 60, colour: 2}],
        },
      ];
    },
    numbers: (found, {tr}) => ({
      "Correlation, one canonical response": fixed(found.one, 3),
      "Correlation, delayed copies": fixed(found.stacked, 3),
      "Delays": reach(found.delays, tr),
    }),
    tell(found, {later, tr}) {
      const when = later ? `${Math.abs(later)} s ${later < 0 ? "earlier" : "later"} than` : "exactly as late as";
      return `The listener is ${when} the canonical response. That response reaches ${fixed(found.one, 2)}; ` +
        `delayed copies (${reach(found.delays, tr)}) reach ${fixed(found.stacked, 2)}.`;
    },
  });

  function reach(delays, tr) {
    return delays.map(delay => delay * tr).join(", ") + " s";
  }
}
