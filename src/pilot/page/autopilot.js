// Draws an autopilot's trace.

const report = JSON.parse(document.getElementById('report').textContent);
const element = (id) => document.getElementById(id);
const number = (value, digits) => value.toLocaleString('en-GB', { minimumFractionDigits: digits, maximumFractionDigits: digits });
const significant = (value, digits = 3) => Number(value.toPrecision(digits)).toLocaleString('en-GB', { maximumFractionDigits: 6 });
const { requests, parts, tolerance } = report;

// First request of each part, and where the text changes.
const starts = parts.map((_, p) => requests.findIndex((request) => request.part === p));

function makeChart(label, y, height) {
  return new Chart({ label, width: 1080, height, right: 110, y, x: { kind: 'linear', low: 0, high: requests.length, text: (v) => number(v, 0), title: 'requests' } });
}

function drawParts(chart) {
  parts.forEach((part, p) => {
    if (p > 0) chart.bar(starts[p]);
    chart.label(starts[p] + 1, part.name);
  });
}

function drawKl() {
  const kls = requests.map((request) => request.kl);
  const positive = kls.filter((kl) => kl > 0);
  const chart = makeChart('KL divergence by request', { kind: 'log', low: Math.min(...positive) * 0.7, high: Math.max(...kls, tolerance * 2) * 1.4, text: (v) => significant(v, 2) }, 380);
  chart.limit(tolerance, `${significant(tolerance)} accepted`);
  drawRefits(chart);
  drawParts(chart);
  requests.forEach((request, i) => {
    const hint = `request ${i + 1}: KL ${significant(request.kl)} at ${significant(request.bits_per_value)} bits\n${request.shadowed ? 'shadowed' : 'not shadowed: measured for this page only'}`;
    chart.dot({ x: i + 0.5, y: request.kl }, request.shadowed ? 'c-nest' : 'c-exact faint', hint, request.shadowed ? 4.5 : 3.2);
  });
  // What was served on average, over the latest 20.
  const mean = kls.map((_, i) => {
    const latest = kls.slice(Math.max(0, i - 19), i + 1);
    return { x: i + 0.5, y: latest.reduce((a, b) => a + b, 0) / latest.length };
  });
  chart.curve(mean.slice(4), 'c-small');
  chart.endName(mean[mean.length - 1], 'mean of 20', 'c-small');
  const seen = requests.map((request, i) => ({ ...request, i })).filter((request) => request.shadowed);
  chart.curve(seen.map((request) => ({ x: request.i + 0.5, y: request.kl_upper })), 'c-full thin');
  if (seen.length) chart.endName({ x: requests.length, y: seen[seen.length - 1].kl_upper }, 'upper bound', 'c-full');
  element('chart-kl').innerHTML = chart.svg();
}

// Refits: while one is made, and where the new nest takes over.
function drawRefits(chart) {
  for (const refit of report.refits) {
    if (refit.made === null) continue;
    const end = refit.tried ?? requests.length;
    chart.band(refit.made, end, `a nest of the new text is made in the background\n${number(refit.tokens, 0)} tokens`);
    chart.label(refit.made + 1, 'refit', 28);
    if (refit.kept) {
      chart.bar(refit.decided + 1);
      chart.label(refit.decided + 2, 'new nest', 28);
    }
  }
}

function refitText(refit) {
  const asked = `Request ${refit.asked + 1}: a refit is asked for`;
  if (refit.failed) return `${asked}; it failed: ${refit.failed}.`;
  if (refit.made === null) return `${asked}; the stream ended before there was enough text.`;
  const made = `${asked}; begun at request ${refit.made + 1} with ${number(refit.tokens, 0)} tokens of the latest text, on a thread of its own (${number(refit.seconds, 0)} s)`;
  if (refit.decided === null) return `${made}; the stream ended before it was tried.`;
  return `${made}; tried on requests ${refit.tried + 1} to ${refit.decided + 1}: KL ${significant(refit.kl_before)} with the old nest, ${significant(refit.kl_after)} with the new one at no more bits: ${refit.kept ? 'it serves from then on' : 'dropped'}.`;
}

function drawBits() {
  const bits = requests.map((request) => request.bits_per_value);
  const chart = makeChart('Bits a value by request', { kind: 'linear', low: 0, high: Math.max(...bits) * 1.15, text: (v) => significant(v, 2) }, 230);
  drawRefits(chart);
  drawParts(chart);
  const steps = requests.flatMap((request, i) => [{ x: i, y: request.bits_per_value }, { x: i + 1, y: request.bits_per_value }]);
  chart.curve(steps, 'c-nest');
  requests.forEach((request, i) => {
    if (request.drift_factor === undefined) return;
    const point = { x: i + 0.5, y: request.bits_per_value };
    chart.halo(point, 'c-cost');
    chart.dot(point, 'c-cost', `drift: texts cost ${significant(request.drift_factor, 2)} times as much as in the beginning`);
    chart.text(point, 'drift noticed', 'c-cost', 0, 26);
  });
  element('chart-bits').innerHTML = chart.svg();
}

function drawWords() {
  const within = report.mean_kl <= tolerance;
  element('title').textContent = `Mean KL ${significant(report.mean_kl)} with ${significant(tolerance)} accepted, at ${significant(report.mean_bits_per_value)} bits a value`;
  element('lead').textContent =
    `A shadowed request (${number(100 * report.shadow_share, 0)} %, and all while in doubt: filled dots) is computed with the exact cache too; only those the autopilot sees. It moves when the upper end of its confidence interval does, or the latest values are unlike the ones before.` +
    (within ? '' : ' Over this stream the tolerance was not held.');
  element('tiles').style.gridTemplateColumns = `repeat(${Math.min(parts.length, 4)}, 1fr)`;
  element('tiles').innerHTML = parts
    .map((part) => `<div><dt>${escapeText(part.name)}</dt><dd>${significant(part.mean_kl)} <small>nats</small></dd><dd>${significant(part.mean_bits_per_value)} bits, ${part.requests} requests of ${part.context} tokens</dd></div>`)
    .join('');
  const events = [];
  requests.forEach((request, i) => {
    report.refits.filter((refit) => (refit.decided ?? refit.tried ?? refit.made ?? refit.asked) === i).forEach((refit) => events.push(refitText(refit)));
    if (request.drift_factor !== undefined) {
      events.push(`Request ${i + 1}: drift. Texts cost ${significant(request.drift_factor, 2)} times as much as in the beginning${request.refit ? '; a nest fitted to such text is recommended (matryoshka fit --text)' : ''}.`);
    }
    const next = requests[i + 1];
    if (next && next.rung !== request.rung) events.push(`Request ${i + 1}: from ${significant(request.bits_per_value)} to ${significant(next.bits_per_value)} bits${request.alert ? ', as the latest values are unlike the ones before' : ''}.`);
  });
  element('events').innerHTML = events.map((event) => `<li>${escapeText(event)}</li>`).join('') || '<li>Nothing: one size served all.</li>';
  element('command').textContent = report.command;
  element('meta').textContent = [report.model, parts.map((part) => part.name).join(', then '), report.created].filter(Boolean).join(' · ');
}

drawKl();
drawBits();
drawWords();
showHints();
