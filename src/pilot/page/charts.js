// Charts as SVG text. Colours are classes of page.css (c-nest, c-exact ...), so that they follow the theme.

const escapeText = (text) =>
  String(text).replace(/[&<>"']/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' })[c]);

const fixed = (value) => Number(value.toFixed(2));

function linearScale(low, high, from, to) {
  const place = (value) => from + ((value - low) / (high - low || 1)) * (to - from);
  return { low, high, place, ticks: niceTicks(low, high) };
}

function niceTicks(low, high, count = 5) {
  const raw = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((s) => s * power).find((s) => s >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) ticks.push(i * step + 0);
  return ticks;
}

// Spreads what is near 0, on both sides of it.
function rootScale(low, high, from, to) {
  const root = (value) => Math.sign(value) * Math.sqrt(Math.abs(value));
  const place = (value) => from + ((root(value) - root(low)) / (root(high) - root(low) || 1)) * (to - from);
  const power = 10 ** Math.floor(Math.log10(high));
  const steps = [0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5].map((step) => step * power);
  return { low, high, place, ticks: steps.filter((step) => step <= high) };
}

// Values at or below `low` are placed on it.
function logScale(low, high, from, to) {
  const span = Math.log(high / low) || 1;
  const place = (value) => from + (Math.log(Math.max(value, low) / low) / span) * (to - from);
  const all = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); ++e) {
    for (const m of [1, 2, 5]) all.push(m * 10 ** e);
  }
  const inside = all.filter((t) => t >= low * 0.999 && t <= high * 1.001);
  const decades = inside.filter((t) => Math.abs(Math.log10(t) - Math.round(Math.log10(t))) < 1e-9);
  return { low, high, place, ticks: inside.length > 8 && decades.length > 2 ? decades : inside };
}

// Without ticks whose texts would cover the one before.
const apart = ({ ticks, place }, gap) =>
  ticks.reduce((kept, tick) => (kept.length && Math.abs(place(tick) - place(kept[kept.length - 1])) < gap ? kept : [...kept, tick]), []);

// Moves labels apart that would cover each other; from top to bottom, within [top, bottom].
function spread(labels, gap, bottom) {
  labels.sort((a, b) => a.y - b.y);
  for (let i = 1; i < labels.length; ++i) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + gap);
  for (let i = labels.length - 1, most = bottom; i >= 0; --i, most -= gap) labels[i].y = Math.min(labels[i].y, most);
}

class Chart {
  static count = 0;

  // options: label (for readers that do not see), x and y: {kind: 'linear'|'log'|'root', low, high, text: value -> string, title},
  // right: room for names at the ends of curves
  constructor(options) {
    [this.width, this.height] = [options.width || 540, options.height || 320];
    this.box = { left: 52, right: this.width - (options.right || 14), top: 14, bottom: this.height - 44 };
    const { left, right, top, bottom } = this.box;
    const kinds = { linear: linearScale, log: logScale, root: rootScale };
    const scale = (axis, from, to) => kinds[axis.kind](axis.low, axis.high, from, to);
    this.x = scale(options.x, left, right);
    this.y = scale(options.y, bottom, top);
    this.y.ticks = apart(this.y, 13);
    this.options = options;
    this.clip = `clip-${++Chart.count}`;
    this.parts = [`<clipPath id="${this.clip}"><rect x="${left - 3}" y="${top}" width="${right - left + 6}" height="${bottom - top + 3}"/></clipPath>`];
    this.names = [];
    this.drawAxes();
  }

  // Whether a value of y is on the chart; curves are cut off there.
  holds(value) {
    return value <= this.y.high;
  }

  drawAxes() {
    const { left, right, top, bottom } = this.box;
    const { x, y } = this.options;
    for (const tick of this.y.ticks) {
      const at = fixed(this.y.place(tick));
      this.parts.push(`<line class="grid" x1="${left}" x2="${right}" y1="${at}" y2="${at}"/>`);
      this.parts.push(`<text x="${left - 8}" y="${at + 4}" text-anchor="end">${escapeText(y.text(tick))}</text>`);
    }
    for (const tick of this.x.ticks) {
      const at = fixed(this.x.place(tick));
      this.parts.push(`<line class="axis" x1="${at}" x2="${at}" y1="${bottom}" y2="${bottom + 4}"/>`);
      this.parts.push(`<text x="${at}" y="${bottom + 18}" text-anchor="middle">${escapeText(x.text(tick))}</text>`);
    }
    this.parts.push(`<line class="axis" x1="${left}" x2="${right}" y1="${bottom}" y2="${bottom}"/>`);
    this.parts.push(`<text x="${(left + right) / 2}" y="${bottom + 37}" text-anchor="middle">${escapeText(x.title)}</text>`);
  }

  at(point) {
    return [fixed(this.x.place(point.x)), fixed(this.y.place(point.y))];
  }

  // A dashed line at a value of y, and what is below it tinted.
  limit(value, text) {
    const { left, right, top, bottom } = this.box;
    const at = fixed(Math.max(this.y.place(value), top));
    this.parts.push(`<rect class="within" x="${left}" y="${at}" width="${right - left}" height="${fixed(bottom - at)}"/>`);
    this.parts.push(`<line class="limit" x1="${left}" x2="${right}" y1="${at}" y2="${at}"/>`);
    this.parts.push(`<text class="limit-text" x="${right - 4}" y="${at - 6}" text-anchor="end">${escapeText(text)}</text>`);
  }

  curve(points, colour) {
    const path = points.map((point, i) => `${i ? 'L' : 'M'}${this.at(point).join(' ')}`).join('');
    this.parts.push(`<path class="curve stroke ${colour}" d="${path}" clip-path="url(#${this.clip})"/>`);
  }

  whisker(point, low, high, colour) {
    const [x] = this.at(point);
    const [a, b] = [Math.max(low, this.y.low), Math.min(high, this.y.high)].map((value) => fixed(this.y.place(value)));
    this.parts.push(`<line class="whisker stroke ${colour}" x1="${x}" x2="${x}" y1="${a}" y2="${b}"/>`);
  }

  dot(point, colour, hint, radius = 4.5) {
    const [x, y] = this.at(point);
    this.parts.push(`<circle class="dot fill ${colour}" cx="${x}" cy="${y}" r="${radius}" data-hint="${escapeText(hint)}"/>`);
  }

  halo(point, colour) {
    const [x, y] = this.at(point);
    this.parts.push(`<circle class="halo stroke ${colour}" cx="${x}" cy="${y}" r="10"/>`);
  }

  // Where something changes along x, from top to bottom; and a word at the top.
  bar(x) {
    const at = fixed(this.x.place(x));
    this.parts.push(`<line class="change" x1="${at}" x2="${at}" y1="${this.box.top}" y2="${this.box.bottom}"/>`);
  }

  // A stretch of x, tinted from top to bottom.
  band(low, high, hint) {
    const [from, to] = [this.x.place(low), this.x.place(high)];
    this.parts.push(`<rect class="band" x="${fixed(from)}" y="${this.box.top}" width="${fixed(to - from)}" height="${this.box.bottom - this.box.top}" data-hint="${escapeText(hint)}"/>`);
  }

  label(x, text, dy = 10) {
    this.parts.push(`<text class="name" x="${fixed(this.x.place(x))}" y="${this.box.top + dy}">${escapeText(text)}</text>`);
  }

  // Beside a point; dx, dy in pixels from it.
  text(point, text, colour, dx = 0, dy = 0, anchor = 'middle') {
    const [x, y] = this.at(point);
    this.parts.push(
      `<text class="name fill ${colour}" x="${fixed(x + dx)}" y="${fixed(y + dy)}" text-anchor="${anchor}">${escapeText(text)}</text>`,
    );
  }

  // At the right end of a curve; kept off other names.
  endName(point, text, colour) {
    const [x, y] = this.at(point);
    this.names.push({ x: x + 10, y: y + 4, text, colour });
  }

  svg() {
    spread(this.names, 15, this.box.bottom);
    const names = this.names.map(
      (n) => `<text class="name fill ${n.colour}" x="${fixed(n.x)}" y="${fixed(n.y)}">${escapeText(n.text)}</text>`,
    );
    return `<svg class="chart" viewBox="0 0 ${this.width} ${this.height}" role="img" aria-label="${escapeText(this.options.label)}">${this.parts.join('')}${names.join('')}</svg>`;
  }
}

// What points say when the mouse is over them.
function showHints() {
  const hint = document.getElementById('hint');
  document.addEventListener('mouseover', (event) => {
    const text = event.target.dataset?.hint;
    hint.hidden = !text;
    if (text) hint.textContent = text;
  });
  document.addEventListener('mousemove', (event) => {
    hint.style.left = `${Math.min(event.clientX + 14, innerWidth - hint.offsetWidth - 8)}px`;
    hint.style.top = `${event.clientY + 16}px`;
  });
}
