// Figures, drawn for the width that there is. Each comes with the same numbers as a table.

const figure = (width, height, label, ...children) => svg('svg', { class: 'figure', width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label }, ...children);
const asTable = (head, rows) => el('details', { class: 'more' }, el('summary', {}, 'The numbers'), el('div', { class: 'scroll' }, table(head, rows)));
const scroll = (what, label) => el('div', { class: 'scroll', tabindex: 0, role: 'group', 'aria-label': label }, what);

/** A scale for weights: straight while it can be read, and by powers of ten (both signs) beyond. */
function weightScale(values, top, bottom) {
  const low = Math.min(0, ...values), high = Math.max(1, ...values);
  const wide = Math.max(high, -low) > 12;
  const bend = wide ? (v) => Math.asinh(v * 2) : (v) => v;
  const from = bend(low), to = bend(high), y = (v) => bottom - ((bend(v) - from) / (to - from)) * (bottom - top);
  const step = (high - low) / 4 > 1.5 ? 2 : high - low > 2.5 ? 1 : 0.5;
  const ticks = [0, 1];
  if (wide) for (let p = 10; p <= Math.max(high, -low); p *= 10) ticks.push(...[p, -p].filter((v) => v >= low && v <= high));
  else for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) if (!ticks.some((t) => Math.abs(t - v) < 1e-9)) ticks.push(v);
  return { y, ticks, wide };
}

/** Effective weights as bars. groups : [[name of the group, weights]]; a bar of its own for every weight, a line at 1. */
function weightsFigure(groups, part, doubt) {
  const values = groups.flatMap(([, weights]) => weights).filter((w) => w !== null);
  const many = groups.reduce((n, [, weights]) => n + weights.length, 0);
  const step = many > 24 ? 26 : many > 10 ? 30 : 46, gap = 22, left = 40, top = 24, bottom = 156;
  const width = left + many * step + (groups.length - 1) * gap + 70, height = groups.length > 1 ? 196 : 182;
  const { y, ticks, wide } = weightScale(values, top, bottom);
  const marks = ticks.map((t) => [
    svg('line', { class: t === 0 ? 'axis' : 'rule', x1: left, x2: width - 62, y1: y(t), y2: y(t) }),
    svg('text', { x: left - 7, y: y(t) + 4, 'text-anchor': 'end' }, short(t)),
  ]);
  const bars = [], rows = [];
  let x = left + 6;
  groups.forEach(([name, weights]) => {
    const start = x;
    weights.forEach((w, i) => {
      const right = w !== null && Math.abs(w - 1) <= Math.max(0.005, doubt || 0), box = step - 12;
      rows.push([`${name ? `${name}, ` : ''}${part} ${i + 1}`, short(w), '1']);
      if (w === null) {
        bars.push(svg('text', { x: x + box / 2, y: y(0) - 6, 'text-anchor': 'middle' }, '?'));
      } else {
        const at = Math.min(y(w), y(0)), tall = Math.max(Math.abs(y(w) - y(0)), 0);
        bars.push(tall < 2 ? svg('line', { class: right ? 'good-line' : 'bad-line', x1: x, x2: x + box, y1: y(0), y2: y(0) }) : svg('rect', { class: right ? 'good' : 'bad', x, y: at, width: box, height: tall, rx: 2 }));
        bars.push(svg('text', { class: 'value', x: x + box / 2, y: w < 0 && tall >= 2 ? y(w) + 13 : at - 5, 'text-anchor': 'middle' }, many > 10 ? String(+w.toFixed(2) || 0) : short(w)));
      }
      bars.push(svg('text', { x: x + box / 2, y: bottom + 18, 'text-anchor': 'middle' }, String(i + 1)));
      x += step;
    });
    if (groups.length > 1) bars.push(svg('text', { x: (start + x - 12) / 2, y: bottom + 36, 'text-anchor': 'middle' }, name));
    x += gap;
  });
  const expected = [svg('line', { class: 'expected', x1: left, x2: width - 62, y1: y(1), y2: y(1) }), svg('text', { class: 'value', x: width - 58, y: y(1) + 4 }, 'expected 1')];
  const label = `Effective weight of every ${part}, 1 is right: ${groups.map(([name, weights]) => `${name ? `${name}: ` : ''}${weights.map(short).join(', ')}`).join('; ')}`;
  return el('div', {}, scroll(figure(width, height, label, ...marks.flat(), ...bars, ...expected), `Effective weights by ${part}`),
    wide && el('p', { class: 'key' }, 'The axis is bent, so that small and large weights can both be read.'),
    asTable([part, 'observed', 'expected'], rows));
}

/** Weights of tokens: a row for each sample; empty where nothing was looked for, a ring where the weight is 0. */
function tokensFigure(tokens) {
  const size = 15, left = 30, columns = Math.max(...tokens.map((row) => row.length));
  const boxes = tokens.flatMap((row, i) => [svg('text', { x: left - 7, y: i * size + 11, 'text-anchor': 'end' }, String(i + 1)), ...row.map((w, t) => {
    const x = left + t * size, y = i * size;
    if (w === null) return svg('circle', { class: 'dot', cx: x + 6.5, cy: y + 7, r: 1.2 });
    const title = svg('title', {}, `sample ${i + 1}, token ${t + 1}: ${short(w)}`);
    if (Math.abs(w) < 0.01) return svg('rect', { class: 'absent', x: x + 0.5, y: y + 0.5, width: 12, height: 12, rx: 2 }, title);
    if (Math.abs(w - 1) < 0.01) return svg('rect', { class: 'good', x, y, width: 13, height: 13, rx: 2 }, title);
    const strength = 0.35 + 0.65 * Math.min(1, Math.abs(Math.log2(Math.max(Math.abs(w), 0.05))) / 2);
    return svg('g', {}, title, svg('rect', { class: w > 1 || w < 0 ? 'high' : 'low', x, y, width: 13, height: 13, rx: 2, opacity: strength.toFixed(2) }),
      svg('path', { class: 'mark', d: w < 0 ? `M${x + 3} ${y + 6.5}h7` : w > 1 ? `M${x + 6.5} ${y + 3}v7M${x + 3} ${y + 6.5}h7` : `M${x + 3} ${y + 10}l7 -7` }));
  })]);
  const flat = tokens.flat().filter((w) => w !== null);
  const label = `Effective weight of ${flat.length} tokens in ${tokens.length} samples, from ${short(Math.min(...flat))} to ${short(Math.max(...flat))}`;
  const rows = tokens.map((row, i) => [`sample ${i + 1}`, row.map((w) => (w === null ? '·' : short(w))).join(' ')]);
  return el('div', {}, scroll(figure(left + columns * size, tokens.length * size, label, ...boxes), 'Effective weights of tokens'),
    el('p', { class: 'key' }, el('span', { class: 'swatch good' }), ' 1 · ', el('span', { class: 'swatch absent' }), ' 0 · ', el('span', { class: 'swatch low' }, '∕'), ' less than 1 · ', el('span', { class: 'swatch high' }, '+'),
      ' more · ', el('span', { class: 'swatch high' }, '−'), ' negative · a dot where not looked for. Prompt and padding should be 0.'),
    asTable(['', 'weights'], rows));
}

/** Below this power of ten there is one place for all: nothing that rounds in float32 is as small. */
const FLOOR = -9;

/** Every check of the cell that stands for a finding on one logarithmic axis: figure, tolerance, noise of plain PyTorch. */
function checksFigure(checks, room) {
  const shown = checks.filter((c) => c.bound || c.figure), still = checks.filter((c) => !c.bound && c.figure === 0);
  const numbers = shown.flatMap((c) => [c.figure, c.bound, c.noise]).filter((v) => v > 0);
  if (!shown.length) return el('p', { class: 'muted' }, checks.length ? `All ${checks.length} checks are exact: no error, and none allowed.` : 'No check was made.');
  const narrow = room < 520, left = narrow ? 104 : 132, right = narrow ? 12 : 128, zero = left + 14, row = 24, top = 8;
  const width = Math.max(280, Math.min(room, 640)), from = left + 34, to = width - right;
  const low = Math.max(FLOOR, Math.floor(Math.log10(Math.min(...numbers, 1e-6)))), high = Math.max(Math.ceil(Math.log10(Math.max(...numbers, 1e-3))), low + 2);
  const x = (v) => (v === null ? to : v < 10 ** low ? zero : from + ((Math.log10(v) - low) / (high - low)) * (to - from));
  const bottom = top + shown.length * row, every = Math.ceil((high - low) / ((to - from) / 44));
  const axis = [svg('text', { x: zero, y: bottom + 16, 'text-anchor': 'middle' }, '<'), svg('line', { class: 'rule', x1: zero, x2: zero, y1: top, y2: bottom })];
  for (let p = low; p <= high; p += every) {
    axis.push(svg('line', { class: 'rule', x1: x(10 ** p), x2: x(10 ** p), y1: top, y2: bottom }));
    axis.push(svg('text', { x: x(10 ** p), y: bottom + 16, 'text-anchor': 'middle' }, p === 0 ? '1' : '10', p !== 0 && svg('tspan', { dy: -4, 'font-size': 8 }, String(p).replace('-', '−'))));
  }
  const lines = shown.flatMap((c, i) => {
    const y = top + (i + 0.5) * row, red = !(c.figure <= c.bound) || c.figure === null;
    const at = x(c.figure);
    return [
      svg('text', { x: 0, y: y + 4, class: red ? 'value' : '' }, cut(`${c.name}, step ${c.step + 1}`, narrow ? 17 : 22)),
      svg('line', { class: 'reach', x1: zero, x2: x(c.bound), y1: y, y2: y }),
      svg('line', { class: 'bound', x1: x(c.bound), x2: x(c.bound), y1: y - 8, y2: y + 8 }),
      svg('circle', { class: 'noise', cx: x(c.noise), cy: y, r: 3.5 }),
      red ? svg('path', { class: 'bad', d: `M${at} ${y - 6}l6 6l-6 6l-6 -6z` }) : svg('circle', { class: 'good', cx: at, cy: y, r: 4.5 }),
      !narrow && svg('text', { x: width - right + 14, y: y + 4, class: red ? 'value' : '' }, `${exact(c.figure)} / ${exact(c.bound)}`),
    ];
  });
  const label = `Error against tolerance, logarithmic: ${shown.map((c) => `${c.name} of step ${c.step + 1} ${exact(c.figure)}, tolerance ${exact(c.bound)}, plain PyTorch ${exact(c.noise)}`).join('; ')}`;
  return el('div', {}, scroll(figure(width, bottom + 24, label, ...axis, ...lines), 'Error against tolerance'),
    el('p', { class: 'key' }, '◆ error beyond tolerance   ● error within   ❘ tolerance   ○ plain PyTorch', still.length ? `. Exact, as they must be: ${[...new Set(still.map((c) => c.name))].join(', ')}.` : ''),
    asTable(['check', 'error', 'tolerance', 'plain PyTorch', 'where'], checks.map((c) => [`${c.name}, step ${c.step + 1}`, exact(c.figure), exact(c.bound), exact(c.noise), c.where || ''])));
}

/** All releases that were run, in order: wrong, right or not shown, and the advisory's declared range as a bar under them. */
function stripFigure(finding, number, advisory) {
  const name = advisory ? advisory.framework : finding.framework;
  const run = new Map();
  ENVIRONMENTS.forEach((one) => { if (one.packages[name] && !one.patched) run.set(String(one.packages[name]), [0, 0]); });
  if (advisory) Object.entries(advisory.releases).forEach(([version, seen]) => run.set(version, seen));
  else tallyReleases(run, name, number);
  const order = VIEW.versions[name] || [...run.keys()];
  const ends = advisory ? advisory.affected.flat().filter(Boolean) : [];
  const declared = (version) => (advisory ? advisory.affected : []).some(([a, b]) => order.indexOf(version) >= order.indexOf(a) && (!b || order.indexOf(version) < order.indexOf(b)));
  const items = order.filter((version) => run.has(version) || ends.includes(version)).map((version) => {
    const seen = run.get(version), [wrong, right] = seen || [0, 0];
    const kind = finding.verdict === 'by-design' ? 'by-design' : 'wrong';
    const bound = !seen, fixed = (advisory ? advisory.affected : []).some(([, b]) => b === version);
    const says = bound ? (fixed ? 'fixed here' : 'from here') : wrong ? `${wrong} ${kind}${right ? `, ${right} right` : ''}` : right ? `${right} right` : 'not shown';
    return el('li', { class: `${declared(version) ? 'declared' : ''} ${bound ? 'bound' : ''}` }, el('span', { class: 'num' }, version),
      bound ? null : wrong ? chip(kind) : right ? chip('pass') : el('span', { class: 'chip v-none' }, el('b', {}, '·')), el('span', { class: 'seen' }, says), declared(version) && el('span', { class: 'hidden' }, 'declared affected'));
  });
  return el('div', {}, el('ol', { class: 'strip', 'aria-label': `Releases of ${name}` }, items),
    el('p', { class: 'key' }, advisory ? [el('i', {}), `declared ${advisory.by_design ? 'to be so' : 'affected'} by ${advisory.id}. `] : 'No advisory declares a range. ', `Cells of ${name} as it was released; “not shown”: no cell that could show it gave an answer.`));
}

/** For a finding that no advisory explains: its own cells, wrong and right, by release. */
function tallyReleases(run, name, number) {
  const cells = new Set();
  ENVIRONMENTS.forEach(({ verdicts }) => verdicts.finding.forEach((f, i) => { if (f === number) cells.add(verdicts.cell[i]); }));
  ENVIRONMENTS.forEach((one, e) => {
    const seen = !one.patched && run.get(String(one.packages[name]));
    if (!seen) return;
    for (const cell of cells) {
      const i = AT[e][cell];
      if (i < 0) continue;
      if (one.verdicts.finding[i] === number) seen[0]++;
      else if (one.verdicts.verdict[i] === PASS) seen[1]++;
    }
  });
}

/** Error over tolerance of all verdicts: right ones above the axis, findings below it. */
function roundingFigure(room) {
  const step = 0.25, low = -3, high = 7, bins = Math.round((high - low) / step);
  const up = new Uint32Array(bins + 2), down = new Uint32Array(bins + 2);
  let rights = 0, wrongs = 0, most = 0, least = Infinity;
  ENVIRONMENTS.forEach(({ verdicts: v }) => v.verdict.forEach((kind, i) => {
    const found = VERDICTS[kind].name;
    if (!TEXTS[v.check[i]] || !['pass', 'wrong', 'by-design'].includes(found)) return;
    const ratio = v.figure[i] === null ? Infinity : v.bound[i] > 0 ? v.figure[i] / v.bound[i] : v.figure[i] > 0 ? Infinity : 0;
    const at = ratio === 0 ? 0 : ratio === Infinity ? bins + 1 : Math.max(1, Math.min(bins, 1 + Math.floor((Math.log10(ratio) - low) / step)));
    if (found === 'pass') { up[at]++; rights++; most = Math.max(most, ratio); } else { down[at]++; wrongs++; least = Math.min(least, ratio); }
  }));
  if (!rights && !wrongs) return el('p', { class: 'muted' }, 'Nothing was judged.');
  const width = Math.max(300, Math.min(room, 1360)), left = 44, right = width - 44, half = 130, middle = half + 26;
  const box = (right - left) / bins, highest = Math.max(...up, ...down), y = (n) => Math.sqrt(n / highest) * half;
  const x = (power) => left + (power - low) / step * box;
  const place = (i) => (i === 0 ? left - 30 : i === bins + 1 ? right + 10 : left + (i - 1) * box);
  const bars = [];
  for (let i = 0; i < bins + 2; i++) {
    const wide = i === 0 || i === bins + 1 ? 20 : Math.max(box - 1.5, 1);
    if (up[i]) bars.push(svg('rect', { class: 'good', x: place(i), y: middle - Math.max(y(up[i]), 1.5), width: wide, height: Math.max(y(up[i]), 1.5) }));
    if (down[i]) bars.push(svg('rect', { class: 'bad', x: place(i), y: middle, width: wide, height: Math.max(y(down[i]), 1.5) }));
  }
  const bottom = middle + Math.max(y(Math.max(...down)), 24) + 14, axis = [svg('line', { class: 'axis', x1: left - 32, x2: right + 32, y1: middle, y2: middle })];
  for (let p = low; p <= high; p += width < 520 ? 2 : 1) {
    axis.push(svg('line', { class: 'rule', x1: x(p), x2: x(p), y1: 20, y2: bottom }));
    axis.push(svg('text', { x: x(p), y: bottom + 16, 'text-anchor': 'middle' }, p === 0 ? '1' : '10', p !== 0 && svg('tspan', { dy: -4, 'font-size': 8 }, String(p).replace('-', '−'))));
  }
  axis.push(svg('text', { x: left - 20, y: bottom + 16, 'text-anchor': 'middle' }, '0'), svg('text', { x: right + 20, y: bottom + 16, 'text-anchor': 'middle' }, '∞'));
  const line = [svg('line', { class: 'expected', x1: x(0), x2: x(0), y1: 18, y2: bottom }), svg('text', { class: 'value', x: x(0), y: 12, 'text-anchor': 'middle' }, 'tolerance')];
  const names = [svg('text', { class: 'value', x: x(0) + 10, y: 34 }, `✓ ${rights.toLocaleString('en')} right`), svg('text', { class: 'value', x: x(0) + 10, y: bottom - 8 }, `✗ ${wrongs.toLocaleString('en')} not right`)];
  const gap = [rights && `the largest error of a right cell is ${exact(most)} of its tolerance`, wrongs && (least === Infinity ? 'every wrong one is where no error is allowed' : `the smallest of a wrong one ${exact(least)} times its tolerance`)].filter(Boolean).join('; ');
  const rows = [];
  for (let i = 0; i < bins + 2; i++) if (up[i] || down[i]) rows.push([i === 0 ? 'no error' : i === bins + 1 ? 'none allowed' : `${exact(10 ** (low + (i - 1) * step))} to ${exact(10 ** (low + i * step))}`, up[i], down[i]]);
  return el('div', {}, el('p', { class: 'said' }, `${gap.charAt(0).toUpperCase()}${gap.slice(1)}.`), scroll(figure(width, bottom + 24, `Error over tolerance, logarithmic, of ${rights} right cells and ${wrongs} findings: ${gap}`, ...axis, ...bars, ...line, ...names), 'Error over tolerance'),
    el('p', { class: 'key' }, 'Bars: the square root of how many. One count for each verdict, by the check that says most: the first beyond its tolerance, else the nearest to it. 0: no error at all; ∞: an error where none is allowed. Documented choices count as not right here.'),
    asTable(['error over tolerance', 'right', 'not right'], rows));
}
