// What follows from the report and from the inputs: plain functions of numbers, no page.

const ofNest = (report) => report.quality.filter((point) => point.rung !== undefined);

// Fraction; errors: how many standard errors to add (0: the measured value itself).
const increase = (point, errors) => (1 + point.perplexity_increase) * Math.exp(errors * point.log_ratio_stderr) - 1;

// The smallest size within the tolerance, as all larger ones are; the same rule as the program's.
function choose(report, tolerance, confident) {
  const errors = confident ? report.confident_errors : 0;
  let chosen = null;
  for (const point of ofNest(report)) {
    if (increase(point, errors) > tolerance) break;
    chosen = point;
  }
  return chosen;
}

// What a session of so many tokens holds by its shape, layer by layer and without padding: bytes. Layers with a sliding window hold no
// more tokens than it; of the nest's, the first and the latest are exact.
function shapeBytes(report, point, tokens) {
  const { num_layers: layers, exact_bytes_per_token: allLayers, layer_windows: windows } = report.model;
  const { sinks, recent, groups, slab_bits: slabBits } = report.nest;
  const exact = allLayers / layers;
  let bytes = 0;
  for (let layer = 0; layer < layers; ++layer) {
    const held = Math.min(tokens, windows[layer] ?? Infinity);
    if (point.rung === undefined) {
      bytes += (held * exact * point.coded_bits_per_value) / 16;
      continue;
    }
    const slabs = point.ranks.slice(layer * groups * 2, (layer + 1) * groups * 2).reduce((a, b) => a + b, 0);
    const kept = Math.min(held, recent + (held < tokens ? 0 : sinks)); // a window that slides has left the first ones
    bytes += kept * exact + ((held - kept) * slabs * slabBits) / 8;
  }
  return bytes;
}

// Bytes of one session of so many tokens: by its shape, and what was counted beyond it (padding; a recent window that is not full).
function sessionBytes(report, point, tokens) {
  const bytes = (each) => {
    const beyond = each.kv_bytes_per_token * each.context - shapeBytes(report, each, each.context);
    return shapeBytes(report, each, tokens) + beyond * Math.min(1, tokens / each.context);
  };
  return Math.min(bytes(point), bytes(report.quality.find((each) => each.budget === 'exact')));
}

const sessionsThatFit = (report, point, tokens, memoryBytes) =>
  Math.floor(memoryBytes / sessionBytes(report, point, tokens));

// Tokens a second at a depth, between the measured ones; null without a measurement.
function speedAt(report, budget, depth, what = 'decode_tokens_per_s') {
  const series = report.speed.series.find((each) => each.budget === budget);
  if (!series || series.depths.length === 0) return null;
  const at = series.depths;
  const upper = at.findIndex((each) => each.depth >= depth);
  if (upper === -1) return at[at.length - 1][what].median;
  if (upper === 0) return at[0][what].median;
  const [low, high] = [at[upper - 1], at[upper]];
  const part = (depth - low.depth) / (high.depth - low.depth);
  // Seconds a token grow with the depth in a straight line; its inverse does not.
  return 1 / ((1 - part) / low[what].median + part / high[what].median);
}

// Speed was measured at a few sizes; others take the nearest of the nest's.
function nearestWithSpeed(report, point) {
  const measured = ofNest(report).filter((each) => report.speed.series.some((s) => s.budget === each.budget));
  const distance = (each) => Math.abs(Math.log(each.coded_bytes_per_token / point.coded_bytes_per_token));
  return measured.reduce((best, each) => (best && distance(best) <= distance(each) ? best : each), null);
}

// Per hour of serving, against the exact cache; and after how many hours what it took is back.
//   inputs: context, sessions, tokensPerHour, memoryPrice (EUR a GB and hour), machinePrice (EUR an hour),
//           preparationMinutes, otherCost (EUR)
function economy(report, point, inputs) {
  const exact = report.quality.find((each) => each.budget === 'exact');
  const difference = sessionBytes(report, exact, inputs.context) - sessionBytes(report, point, inputs.context);
  const memory = inputs.sessions * difference * 1e-9;
  const timed = nearestWithSpeed(report, point);
  const slow = speedAt(report, 'exact', inputs.context);
  const fast = timed && speedAt(report, timed.budget, inputs.context);
  const seconds = slow && fast ? inputs.tokensPerHour * (1 / slow - 1 / fast) : 0;
  const preparation = (inputs.preparationMinutes / 60) * inputs.machinePrice + inputs.otherCost;
  const worth = memory * inputs.memoryPrice + (seconds / 3600) * inputs.machinePrice;
  return { memory, seconds, preparation, worth, hours: worth > 0 ? preparation / worth : Infinity };
}
