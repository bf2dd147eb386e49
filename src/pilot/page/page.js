// Draws the report; draws again when an input changes.

const report = JSON.parse(document.getElementById('report').textContent);
const element = (id) => document.getElementById(id);
const exactPoint = report.quality.find((point) => point.budget === 'exact');

// Inputs of the cost: [name, label, value, unit]; what the report does not know is an assumption.
const preparationMinutes = report.preparation.seconds === null ? null : report.preparation.seconds / 60;
const pilotMinutes = (report.seconds.quality + report.seconds.speed + report.seconds.answers) / 60;
const costInputs = [
  ['h', 'What it takes once'],
  ['preparation', 'Fitting, training, searching', preparationMinutes === null ? 10 : preparationMinutes, 'min', 0.1],
  ['piloting', 'This pilot', pilotMinutes, 'min', 0.1],
  ['other', 'Anything else', 0, '€', 1],
  ['h', 'What is served'],
  ['sessions', 'Sessions held at a time', 50, '', 1],
  ['tokens', 'Tokens decoded an hour', 100000, '', 1000],
  ['h', 'What things cost'],
  ['memory-price', 'A GB of memory for an hour', 0.004, '€', 0.001],
  ['machine-price', 'This machine for an hour', 0.1, '€', 0.01],
];

// ---- words and numbers

const number = (value, digits) => value.toLocaleString('en-GB', { minimumFractionDigits: digits, maximumFractionDigits: digits });
const significant = (value, digits = 3) => Number(value.toPrecision(digits)).toLocaleString('en-GB', { maximumFractionDigits: 6 });
const percent = (fraction, digits = 2) => `${fraction < 0 ? '−' : '+'}${number(Math.abs(100 * fraction), digits)} %`;
const plainPercent = (fraction) => `${significant(100 * fraction, 3)} %`;

function bytesText(bytes) {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (bytes >= 1000 && unit < 4) [bytes, unit] = [bytes / 1000, unit + 1];
  return `${bytes >= 100 || Number.isInteger(bytes) ? number(bytes, 0) : number(bytes, 1)} ${units[unit]}`;
}

function durationText(hours) {
  if (!Number.isFinite(hours)) return 'never';
  if (hours < 1 / 60) return `${significant(hours * 3600, 2)} seconds`;
  if (hours < 1) return `${significant(hours * 60, 2)} minutes`;
  if (hours < 48) return `${significant(hours, 2)} hours`;
  if (hours < 24 * 60) return `${significant(hours / 24, 2)} days`;
  return hours < 24 * 365 * 3 ? `${significant(hours / 730, 2)} months` : `${significant(hours / 8760, 2)} years`;
}

const moneyText = (euros) => `${euros < 0 ? '−' : ''}€${Math.abs(euros) >= 100 ? number(Math.abs(euros), 0) : significant(Math.abs(euros), 2)}`;

function sizeName(point) {
  if (point.rung === undefined) return point.budget === 'exact' ? 'exact, 16 bits' : `${point.budget}, as llama.cpp's`;
  const bits = significant(point.coded_bits_per_value, 3);
  return `${bits} ${bits === '1' ? 'bit' : 'bits'}`;
}

const pointOf = (budget) => report.quality.find((point) => point.budget === budget);

// Those whose speed and answers were measured have a colour of their own.
function colourOf(point) {
  if (point.budget === 'exact') return 'c-exact';
  if (point.rung === undefined) return 'c-peer';
  const shown = report.speed.series.filter((series) => series.budget !== 'exact').map((series) => series.budget);
  return shown.indexOf(point.budget) === 1 ? 'c-small' : 'c-nest';
}

// ---- inputs

function readNumber(id) {
  const value = Number(element(id).value);
  return Number.isFinite(value) && value >= 0 ? value : 0;
}

function readState() {
  const tolerance = readNumber('tolerance') / 100;
  const confident = element('confidence').checked;
  return {
    tolerance,
    confident,
    context: Math.max(1, readNumber('context')),
    memory: readNumber('memory') * 1e9,
    chosen: choose(report, tolerance, confident),
  };
}

function costState(state) {
  return {
    context: state.context,
    sessions: readNumber('input-sessions'),
    tokensPerHour: readNumber('input-tokens'),
    memoryPrice: readNumber('input-memory-price'),
    machinePrice: readNumber('input-machine-price'),
    preparationMinutes: readNumber('input-preparation') + readNumber('input-piloting'),
    otherCost: readNumber('input-other'),
  };
}

// ---- sections

const tile = (name, value, note) => `<div><dt>${name}</dt><dd>${value}</dd><dd>${note}</dd></div>`;

function drawVerdict(state) {
  const { chosen, tolerance, context } = state;
  element('verdict').classList.toggle('none', !chosen);
  element('flags').textContent = `${report.nest.flag} --budget ${chosen ? chosen.budget : 'max'}`;
  if (!chosen) {
    const best = ofNest(report)[0];
    element('verdict-title').textContent = `No size of this nest stays within ${plainPercent(tolerance)}`;
    element('verdict-text').textContent = `At its largest it costs ${percent(increase(best, 0))}. Accept more, or fit a nest with more bits (fit --max-bits).`;
    element('tiles').innerHTML = '';
    return;
  }
  const [exactBytes, bytes] = [exactPoint, chosen].map((point) => sessionBytes(report, point, context));
  element('verdict-title').textContent = `A cache ${number(exactBytes / bytes, 1)} times smaller, at ${sizeName(chosen)} a value`;
  const error = chosen.log_ratio_stderr * report.confident_errors;
  element('verdict-text').textContent =
    `The smallest measured size that keeps perplexity within ${plainPercent(tolerance)}` +
    `${state.confident ? ', with 95 % confidence' : ''}. It costs ${percent(chosen.perplexity_increase)}` +
    `${error > 0 ? ` (at most ${percent(increase(chosen, report.confident_errors))} with 95 % confidence)` : ''}.`;
  const [before, after] = [exactPoint, chosen].map((point) => sessionsThatFit(report, point, context, state.memory));
  const timed = nearestWithSpeed(report, chosen);
  const [slow, fast] = [speedAt(report, 'exact', context), timed && speedAt(report, timed.budget, context)];
  element('tiles').innerHTML =
    tile('KV cache a token', bytesText(bytes / context), `instead of ${bytesText(exactBytes / context)}`) +
    tile(`Sessions in ${bytesText(state.memory)}`, number(after, 0), `instead of ${number(before, 0)}`) +
    tile('Perplexity', percent(chosen.perplexity_increase), `${plainPercent(tolerance)} accepted`) +
    (slow && fast
      ? tile('Decoding', `${number(fast, 0)} <small>tokens/s</small>`, `instead of ${number(slow, 0)}, ${number(context, 0)} tokens deep${timed === chosen ? '' : `; measured at ${sizeName(timed)}`}`)
      : tile('Same first choice', `${number(100 * chosen.top1_agreement, 1)} %`, 'of all tokens'));
}

function hintOf(point) {
  return `${sizeName(point)}${point.rung === undefined ? '' : `  (--budget ${point.budget})`}\nperplexity ${percent(point.perplexity_increase)}\nKL ${significant(point.kl)} nats\n${bytesText(point.kv_bytes_per_token)} a token at ${number(point.context, 0)}`;
}

function qualityChart(state, axis, valueOf, errorOf) {
  const kilobytes = (point) => sessionBytes(report, point, state.context) / state.context / 1000;
  const xs = report.quality.map(kilobytes);
  const chart = new Chart({
    label: `${axis.label} against bytes of cache a token`,
    x: { kind: 'log', low: Math.min(...xs) * 0.85, high: Math.max(...xs) * 1.15, text: (v) => significant(v), title: `KB of cache a token, in sessions of ${number(state.context, 0)}` },
    y: axis,
  });
  if (axis.limit !== undefined) chart.limit(axis.limit, `${plainPercent(axis.limit)} accepted`);
  const place = (point) => ({ x: kilobytes(point), y: valueOf(point) });
  chart.curve(ofNest(report).map(place), 'c-nest');
  for (const point of report.quality) {
    if ((point.budget === 'exact' && axis.kind === 'log') || !chart.holds(valueOf(point))) continue;
    const error = errorOf(point);
    chart.whisker(place(point), valueOf(point) - error, valueOf(point) + error, colourOf(point));
    if (point === state.chosen) chart.halo(place(point), 'c-nest');
    chart.dot(place(point), colourOf(point), hintOf(point));
    if (point.rung === undefined) chart.text(place(point), point.budget, colourOf(point), 0, -12);
  }
  const { chosen } = state;
  if (chosen) chart.text(place(chosen), sizeName(chosen), 'c-nest', 13, -10, 'start');
  return chart.svg();
}

function drawQuality(state) {
  const high = Math.max(...report.quality.map((point) => point.perplexity_increase));
  const least = Math.min(0, ...report.quality.map((point) => point.perplexity_increase));
  // What is far above what anybody accepts would press the rest flat, so it is left out.
  const top = Math.min(high * 1.1, Math.max(16 * state.tolerance, 0.02));
  element('chart-perplexity').innerHTML = qualityChart(
    state,
    { kind: 'root', low: Math.min(least * 1.2, -0.001 * top), high: top, label: 'Increase of perplexity', limit: state.tolerance, text: (v) => `${significant(100 * v, 2)} %` },
    (point) => point.perplexity_increase,
    (point) => report.confident_errors * point.log_ratio_stderr,
  );
  const kls = report.quality.map((point) => point.kl).filter((kl) => kl > 1e-7);
  element('chart-kl').innerHTML = qualityChart(
    state,
    { kind: 'log', low: Math.min(...kls) * 0.6, high: Math.max(...kls) * 1.5, label: 'KL divergence', text: (v) => significant(v, 2) },
    (point) => point.kl,
    (point) => Math.min(report.confident_errors * point.kl_stderr, 0.9 * point.kl),
  );
  const peers = report.quality.filter((point) => point.rung === undefined && point !== exactPoint).map((point) => point.budget);
  element('quality-lead').textContent =
    `The line is one nest at its sizes; lower and further left is better.${peers.length ? ` ${peers.join(' and ')}: llama.cpp's roundings, done by the same engine on the same text.` : ''} Bars are 90 % intervals. All bytes count: codes, exact tokens, padding.`;
  const head = ['size', '--budget', 'bytes a token', 'of exact', 'perplexity', 'change', 'KL', 'same first choice'];
  const rows = report.quality.map((point) => {
    const bytes = sessionBytes(report, point, state.context) / state.context;
    const cells = [sizeName(point), point.rung === undefined ? '' : point.budget, number(bytes, 0), `${number((100 * bytes * state.context) / sessionBytes(report, exactPoint, state.context), 1)} %`,
      number(point.perplexity, 3), percent(point.perplexity_increase), significant(point.kl), `${number(100 * point.top1_agreement, 1)} %`];
    return `<tr${point === state.chosen ? ' class="chosen"' : ''}><td>${cells.map(escapeText).join('</td><td>')}</td></tr>`;
  });
  element('quality-table').innerHTML = `<thead><tr><th>${head.join('</th><th>')}</th></tr></thead><tbody>${rows.join('')}</tbody>`;
}

function drawRanks() {
  const point = pointOf(element('rank-budget').value);
  const { groups, dims, slab_bits: slabBits } = report.nest;
  const layers = report.model.num_layers;
  const bits = point.ranks.map((slabs) => (slabs * slabBits) / dims);
  const most = Math.max(...bits, 1e-9);
  const rows = [];
  for (const [side, name] of [[0, 'Keys'], [1, 'Values']]) {
    for (let group = 0; group < groups; ++group) {
      rows.push(`<div class="row-name">${groups > 1 ? `${name}, group ${group + 1}` : name}</div>`);
      for (let layer = 0; layer < layers; ++layer) {
        const index = (layer * groups + group) * 2 + side;
        const share = bits[index] / most;
        const hint = `layer ${layer + 1}, ${name.toLowerCase()}${groups > 1 ? `, group ${group + 1}` : ''}\n${significant(bits[index])} bits a value: ${point.ranks[index]} of ${report.nest.full_slabs[index]} slabs`;
        rows.push(`<div class="cell${share > 0.55 ? ' high' : ''}" style="--v:${fixed(share)}" data-hint="${escapeText(hint)}">${layers <= 40 ? number(bits[index], bits[index] < 9.95 ? 1 : 0) : ''}</div>`);
      }
    }
  }
  const numbers = Array.from({ length: layers }, (_, i) => `<div class="layer">${i + 1}</div>`).join('');
  element('heat-map').innerHTML =
    `<div class="heat" style="grid-template-columns: max-content repeat(${layers}, minmax(0, 1fr))">${rows.join('')}<div class="row-name">Layer</div>${numbers}</div>` +
    `<div class="scale"><span>0</span><i></i><span>${significant(most)} bits a value</span></div>`;
  const sides = [0, 1].map((side) => bits.filter((_, i) => i % 2 === side));
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  element('ranks-lead').textContent =
    `Bits a value that each layer keeps of coded tokens, as the search for the ladder found them: keys ${number(mean(sides[0]), 2)}, values ${number(mean(sides[1]), 2)} on average.`;
}

function drawSpeed() {
  const all = report.speed.series;
  if (!all.length || !all[0].depths.length) return element('speed').remove();
  const deepest = Math.max(...all.flatMap((series) => series.depths.map((each) => each.depth)));
  for (const [id, what, label] of [['chart-decode', 'decode_tokens_per_s', 'Decoding'], ['chart-prefill', 'prefill_tokens_per_s', 'Reading a prompt']]) {
    const high = Math.max(...all.flatMap((series) => series.depths.map((each) => each[what].max)));
    const chart = new Chart({
      label: `${label}: tokens a second against the tokens in the cache`,
      right: 92,
      x: { kind: 'linear', low: 0, high: deepest || 1, text: (v) => number(v, 0), title: 'tokens in the cache' },
      y: { kind: 'linear', low: 0, high: high * 1.05, text: (v) => number(v, 0) },
    });
    for (const series of all) {
      const colour = colourOf(pointOf(series.budget));
      const points = series.depths.map((each) => ({ x: each.depth, y: each[what].median, each }));
      chart.curve(points, colour);
      for (const point of points) {
        chart.whisker(point, point.each[what].min, point.each[what].max, colour);
        chart.dot(point, colour, `${sizeName(pointOf(series.budget))}, ${number(point.x, 0)} tokens in the cache\n${number(point.y, 1)} tokens/s (${number(point.each[what].min, 1)} to ${number(point.each[what].max, 1)})`);
      }
      chart.endName(points[points.length - 1], sizeName(pointOf(series.budget)).replace(', 16 bits', ''), colour);
    }
    element(id).innerHTML = chart.svg();
  }
  element('speed-lead').textContent =
    `Medians of ${report.speed.repetitions}, by turns, on ${report.threads} thread${report.threads === 1 ? '' : 's'}; bars from the least to the most.`;
}

function drawSessions(state) {
  const shown = report.quality.filter((point) => point.rung === undefined || point === state.chosen || report.speed.series.some((series) => series.budget === point.budget));
  const rows = shown.map((point) => ({ point, count: sessionsThatFit(report, point, state.context, state.memory), bytes: sessionBytes(report, point, state.context) }));
  const most = Math.max(1, ...rows.map((row) => row.count));
  element('chart-sessions').innerHTML = `<div class="bars">${rows
    .map(
      ({ point, count, bytes }) =>
        `<div class="name${point === state.chosen ? ' chosen' : ''}">${escapeText(sizeName(point))}</div>` +
        `<div class="track ${colourOf(point)}"><div class="bar" style="width:${fixed((72 * count) / most)}%"></div><b>${number(count, 0)}</b><small>${bytesText(bytes)} each</small></div>`,
    )
    .join('')}</div>`;
  element('sessions-lead').textContent = `Sessions of ${number(state.context, 0)} tokens in ${bytesText(state.memory)}, beside the weights, which take ${bytesText(report.model.weight_bytes)} once.`;
}

function drawCost(state) {
  const point = state.chosen || ofNest(report)[0];
  const result = economy(report, point, costState(state));
  const finite = Number.isFinite(result.hours) && result.hours > 0;
  const end = finite ? result.hours * 2.6 : 24;
  const unit = end > 24 * 60 ? ['months', 730] : end > 72 ? ['days', 24] : end > 2 ? ['hours', 1] : ['minutes', 1 / 60];
  const high = Math.max(result.preparation, result.worth * end, 1e-6) * 1.1;
  const chart = new Chart({
    label: 'What it took and what it saved, over the time of serving',
    height: 300,
    right: 92,
    x: { kind: 'linear', low: 0, high: end / unit[1], text: (v) => significant(v), title: `${unit[0]} of serving` },
    y: { kind: 'linear', low: Math.min(0, result.worth * end * 1.1), high, text: (v) => significant(v, 2) },
  });
  const last = end / unit[1];
  chart.curve([{ x: 0, y: result.preparation }, { x: last, y: result.preparation }], 'c-cost');
  chart.endName({ x: last, y: result.preparation }, 'spent once', 'c-cost');
  chart.curve([{ x: 0, y: 0 }, { x: last, y: result.worth * end }], 'c-nest');
  chart.endName({ x: last, y: result.worth * end }, 'saved', 'c-nest');
  if (finite) {
    const meet = { x: result.hours / unit[1], y: result.preparation };
    chart.halo(meet, 'c-nest');
    chart.dot(meet, 'c-nest', `even after ${durationText(result.hours)}`);
    chart.text(meet, `even after ${durationText(result.hours)}`, 'c-nest', -12, -14, 'end');
  }
  element('chart-cost').innerHTML = chart.svg();
  const minutes = result.seconds / 60;
  element('cost-tiles').innerHTML =
    `<div><dt>Breaks even after</dt><dd id="break-even" data-hours="${result.hours}">${durationText(result.hours)}</dd><dd>of serving</dd></div>` +
    tile('Memory saved', `${significant(result.memory)} <small>GB</small>`, 'less, all the time') +
    tile(minutes < 0 ? 'Time lost' : 'Time saved', `${significant(Math.abs(minutes))} <small>min</small>`, 'in every hour of serving') +
    tile('Worth an hour', moneyText(result.worth), `against ${moneyText(result.preparation)} spent once`);
  const known = { '': 'this nest does not record what making it took, so that figure is an assumption' }[report.preparation.source] ?? `the time for making the nest: ${report.preparation.source}`;
  element('cost-lead').textContent = `At ${sizeName(point)}, against the exact cache. Prices and load are assumptions to be replaced by yours; ${known}.`;
}

function drawAnswers() {
  if (!report.answers.length) return element('answers').remove();
  element('answers-lead').textContent = 'Greedy answers. Marked is what comes after the first token that is not the exact cache’s; a different word is not always a worse one.';
  element('answer-list').innerHTML = report.answers
    .map((set) => {
      const columns = set.answers.map((answer, i) => {
        const point = pointOf(answer.budget);
        const same = answer.differs === '' && answer.agreed_tokens === answer.tokens;
        const note = i === 0 ? `${answer.tokens} tokens` : same ? `the same ${answer.tokens} tokens` : `the same for ${answer.agreed_tokens} tokens`;
        return `<article class="${colourOf(point)}"><h4>${escapeText(sizeName(point))}</h4><p>${escapeText(answer.agreed)}${answer.differs ? `<mark>${escapeText(answer.differs)}</mark>` : ''}</p><footer>${note}</footer></article>`;
      });
      const excerpt = set.excerpt.replace(/\s+/g, ' ').trim();
      return `<div class="answer"><h3>${escapeText(set.question || 'Continue:')} <q>${escapeText(excerpt.slice(0, 110))}…</q></h3><div class="columns">${columns.join('')}</div></div>`;
    })
    .join('');
}

function drawNotes() {
  const { text, model, nest, seconds } = report;
  const sliding = model.layer_windows.filter((window) => window !== null).length;
  const origin = Object.entries(nest.origin).map(([key, value]) => `${key.replace(/_/g, ' ')}: ${value}`);
  const notes = [
    `Text: ${text.files.join(', ')}; ${text.windows} windows of ${number(text.context, 0)} tokens, the second half of each scored (${number(text.scored_tokens, 0)} tokens), as llama.cpp's perplexity does.`,
    `Every token sees what it would see when decoding: the first ${nest.sinks} and the last ${nest.recent} tokens at most exact, ${nest.later_sinks ? `with up to ${nest.later_sinks} more a layer that the model uses as sinks, ` : ''}codes of the rest, in every layer.`,
    `Beyond ${number(text.context, 0)} tokens quality was not measured here; memory and speed follow the context that you enter.`,
    `Bytes: counted at ${number(text.context, 0)} tokens; each further token takes what a coded token takes${sliding ? `, in the layers that see the whole context: ${sliding} of ${model.num_layers} hold a sliding window alone` : ''}.`,
    `Model: ${model.num_layers} layers, ${model.num_kv_heads} KV heads of ${model.head_dim}, ${number(model.parameters / 1e6, 0)} million parameters. Nest: ${origin.join('; ')}.`,
    `Time: quality ${number(seconds.quality, 0)} s, speed ${number(seconds.speed, 0)} s, answers ${number(seconds.answers, 0)} s. Speed counts only what else the machine did not do meanwhile.`,
  ];
  element('note-list').innerHTML = notes.map((note) => `<li>${escapeText(note)}</li>`).join('');
  element('command').textContent = report.command;
}

// ---- start

function drawAll() {
  const state = readState();
  drawVerdict(state);
  drawQuality(state);
  drawSessions(state);
  drawCost(state);
}

function makeInputs() {
  element('tolerance').value = Number((100 * report.tolerance).toPrecision(4));
  element('context').value = Math.min(4096, report.model.max_position_embeddings);
  element('memory').value = 8;
  element('cost-inputs').innerHTML = costInputs
    .map(([id, label, value, unit, step]) =>
      id === 'h'
        ? `<h3>${label}</h3>`
        : `<label>${label} <span class="field"><input id="input-${id}" type="number" min="0" step="${step}" value="${Number(value.toPrecision(3))}"><i>${unit}</i></span></label>`,
    )
    .join('');
  const chosen = choose(report, report.tolerance, false);
  element('rank-budget').innerHTML = ofNest(report)
    .map((point) => `<option value="${escapeText(point.budget)}"${point === chosen ? ' selected' : ''}>${sizeName(point)}${point === chosen ? ', recommended' : ''}</option>`)
    .join('');
}

function listen() {
  document.addEventListener('input', (event) => (event.target.id === 'rank-budget' ? drawRanks() : drawAll()));
  element('copy').addEventListener('click', async () => {
    await navigator.clipboard.writeText(element('flags').textContent);
    element('copy').textContent = 'Copied';
    setTimeout(() => (element('copy').textContent = 'Copy'), 1500);
  });
  showHints();
  addEventListener('beforeprint', () => document.querySelectorAll('details').forEach((each) => (each.open = true)));
}

document.title = `KV cache pilot: ${report.model.name || report.model.path}`;
element('meta').textContent = [report.model.name || report.model.path, report.text.files.join(', '), report.created].filter(Boolean).join(' · ');
makeInputs();
listen();
drawAll();
drawRanks();
drawSpeed();
drawAnswers();
drawNotes();
