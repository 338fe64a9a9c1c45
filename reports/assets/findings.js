// Findings: one card each. What is inside is drawn when it is opened, and before printing.

const sentences = (words) => words.split('; ');
const capital = (words) => (/^[a-z]+([ ,:;-]|$)/.test(words) ? words.charAt(0).toUpperCase() + words.slice(1) : words);

/** The head of a card, and what is said besides. Where nothing could be told apart the advisory says more than the diagnosis. */
function headOf(finding, advisory) {
  const words = finding.diagnosis?.words || finding.reason || finding.verdict;
  const unclear = advisory && (!finding.diagnosis || finding.diagnosis.sure === 'cannot tell');
  const [first, ...rest] = sentences(words);
  return unclear ? [advisory.title, words] : [capital(first), rest.join('; ')];
}

const range = ([from, fixed], choice) => (fixed ? `from ${from}, ${choice ? 'until' : 'fixed in'} ${fixed}` : choice ? `since ${from}` : `from ${from}, not fixed in any release`);

function statusLine(finding, advisory) {
  if (advisory) {
    const spans = advisory.affected.map((span) => range(span, advisory.by_design)).join('; ');
    return [el('b', {}, advisory.by_design ? 'Documented choice ' : 'Known bug ', advisory.id), `: ${advisory.title} (${advisory.framework} ${spans})`];
  }
  if (finding.advisory) return [el('b', {}, `Known bug ${finding.advisory}`)];
  if (finding.verdict === 'wrong' || finding.verdict === 'by-design') return [el('span', { class: 'new' }, 'Not known: new.'), ' No advisory explains it.'];
  return ['No verdict: the step itself failed.'];
}

function card(number) {
  const finding = FINDINGS[number], advisory = ADVISORIES.get(finding.advisory), [head] = headOf(finding, advisory);
  const places = Object.keys(finding.environments).length;
  const latest = Object.keys(finding.environments).some((e) => VIEW.newest.includes(Number(e)));
  const box = el('details', { class: 'card', id: `finding-${number}` },
    el('summary', {}, chip(finding.verdict, finding.verdict), el('h3', {}, cut(head, 2000)),
      el('div', { class: 'scope' }, el('b', {}, plural(finding.cells, 'cell')), el('br', {}), plural(places, 'environment'), latest ? [el('br', {}), 'newest release too'] : ''),
      el('div', { class: 'status' }, statusLine(finding, advisory))));
  box.addEventListener('toggle', () => { if (box.open) fill(box, number); });
  return box;
}

function fill(box, number, printed = false) {
  const kind = printed ? 'print' : String(box.clientWidth);
  if (box.dataset.full === kind) return;
  box.dataset.full = kind;
  box.querySelector('.inside')?.remove();
  const finding = FINDINGS[number], advisory = ADVISORIES.get(finding.advisory), diagnosis = finding.diagnosis;
  const room = Math.max(280, box.clientWidth - (box.clientWidth < 560 ? 34 : 40)), half = printed ? 320 : box.clientWidth > 860 ? (room - 40) / 2 : room;
  const part = (title, ...children) => el('div', {}, el('h4', {}, title), ...children);
  const wide = (element) => { element.classList.add('wide'); return element; };
  const roomy = (element) => { element.classList.add('roomy'); return element; };
  const inside = el('div', { class: 'inside' });
  inside.append(wide(el('div', {}, el('p', { class: 'question' }, finding.question), words(finding, advisory))));
  inside.append(part('Status upstream', ...upstream(finding, advisory)), part('What to do', ...cure(finding, advisory)));
  if (diagnosis?.weights?.length) {
    const ranks = diagnosis.weights.length > 1;
    inside.append(part('Effective weights of the micro-batches', weightsFigure(diagnosis.weights.map((w, r) => [ranks ? `rank ${r}` : '', w]), 'micro-batch', diagnosis.doubt)));
  }
  inside.append(part(`Error against tolerance, in ${cut(finding.id, 200)}`, checksFigure(finding.checks, half)));
  if (diagnosis?.samples?.length) inside.append(roomy(part('Effective weights of the samples', weightsFigure([['', diagnosis.samples]], 'sample', diagnosis.doubt))));
  if (diagnosis?.tokens?.some((row) => row.some((w) => w !== null))) inside.append(part('Effective weights of the tokens', tokensFigure(diagnosis.tokens)));
  inside.append(part('How sure', ...certainty(finding)));
  inside.append(wide(part(`Releases of ${advisory ? advisory.framework : finding.framework}`, stripFigure(finding, number, advisory))));
  inside.append(wide(part('Where it was seen', places(finding))));
  inside.append(wide(part('Reproduce it', command(finding.command), finding.verdict === 'wrong' && !advisory && [el('p', { class: 'muted' }, 'As a script of its own, with the framework alone:'), command(finding.command.replace(/^truestep run /, 'truestep repro ').replace(/ --patch$/, ''))],
    el('p', { class: 'actions' }, el('button', { type: 'button', class: 'link', onclick: () => apply({ finding: finding.fingerprint }, 'matrix') }, 'Show its cells in the matrix')))));
  box.append(inside);
}

function words(finding, advisory) {
  const [, rest] = headOf(finding, advisory), reason = finding.diagnosis ? finding.reason : '';
  return el('div', { class: 'long muted' }, rest ? `${capital(rest)}. ` : '', reason ? `${capital(reason)}.` : '', finding.besides.length ? ` Besides, and not explained by what is known: ${finding.besides.join(', ')}.` : '');
}

function upstream(finding, advisory) {
  if (!advisory) return [el('p', {}, statusLine(finding, advisory))];
  const links = advisory.links.map((link) => el('div', {}, webLink(link) ? el('a', { href: webLink(link), rel: 'noreferrer' }, cut(link, 300)) : cut(link, 300)));
  const line = (name, ...value) => [el('dt', {}, name), el('dd', {}, value)];
  return [el('dl', { class: 'upstream' }, line(advisory.by_design ? 'Choice' : 'Known as', el('b', {}, advisory.id)), line('Title', advisory.title),
    line(advisory.by_design ? 'Versions' : 'Affected', advisory.affected.map((span) => el('div', {}, `${advisory.framework} ${range(span, advisory.by_design)}`))),
    links.length ? line(advisory.by_design ? 'Documented' : 'Links', links) : null),
  advisory.details ? el('details', { class: 'more' }, el('summary', {}, 'What is known of it'), el('p', { class: 'long' }, advisory.details)) : null];
}

function cure(finding, advisory) {
  if (finding.verdict !== 'wrong' && finding.verdict !== 'by-design') return [el('p', {}, 'Look at the error first: without a step there is no verdict on this configuration.')];
  if (!advisory) return [el('p', {}, 'No cure is known. Avoid this configuration, or compare with a release that is right below. Please report it upstream with the script below.')];
  if (advisory.by_design) return [el('p', {}, 'Nothing is broken: decide whether this is what you want.')];
  const fixed = advisory.affected.length ? advisory.affected[advisory.affected.length - 1][1] : null, lines = [];
  if (fixed) lines.push(el('p', {}, 'Upgrade to ', el('b', {}, `${advisory.framework} ${fixed}`), ' or later.'));
  if (advisory.patch) {
    lines.push(el('p', {}, fixed ? 'Or apply the patch' : 'No release has a fix. Apply the patch', ': call ', el('code', {}, 'truestep.patch()'), ' before training, or'), command('truestep exec -- COMMAND ...'));
  } else if (!fixed) lines.push(el('p', {}, 'No release has a fix and there is no patch: avoid this configuration.'));
  return lines;
}

function certainty(finding) {
  const { sure, why } = finding.diagnosis || {};
  const figures = finding.worst === null ? '' : finding.worst ? `The largest error of its cells is ${exact(finding.worst)}.` : '';
  if (!sure) return [el('p', {}, finding.verdict === 'error' || finding.verdict === 'timeout' ? 'Not a verdict.' : 'The verdict is certain, what was done is not known.', ' ', figures)];
  return [el('p', {}, el('b', {}, capital(sure)), why ? `: ${why}.` : '.'), el('p', {}, figures)];
}

function places(finding) {
  const order = VIEW.columns.filter((e) => finding.environments[e]);
  return el('ul', { class: 'places' }, order.map((e) => el('li', {}, `${release(e)} `, el('span', { class: 'muted' }, cut(ENVIRONMENTS[e].name, 120)), el('b', {}, String(finding.environments[e])))));
}

function command(text) {
  const code = el('code', {}, text), button = el('button', { type: 'button' }, 'Copy');
  button.setAttribute('aria-label', `Copy: ${clean(cut(text, 200))}`);
  button.addEventListener('click', async () => {
    const plain = code.textContent;
    let done = true;
    try { await navigator.clipboard.writeText(plain); } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      done = document.execCommand('copy');
    }
    button.textContent = done ? 'Copied' : 'Selected';
    announce(done ? 'Command copied' : 'Command selected');
    setTimeout(() => { button.textContent = 'Copy'; }, 1600);
  });
  return el('div', { class: 'command' }, code, button);
}

// ---- all of them ----

let waiting = [], cardsDrawn = 0;
const CHUNK = 40;

/** Cards of the findings that are shown; the first at once, the others when the browser has time. */
function drawCards(shown) {
  const home = document.getElementById('cards');
  const order = VIEW.findings.filter((number) => shown.has(number));
  home.replaceChildren();
  const whole = FINDINGS.length === order.length;
  home.append(el('p', { class: 'intro' }, FINDINGS.length ? (whole ? `${plural(order.length, 'finding')}. Those of the newest releases come first, documented choices and errors last.` : `${order.length} of ${plural(FINDINGS.length, 'finding')} match the filters.`) : 'There are none.'));
  waiting = order;
  const turn = ++cardsDrawn;
  const some = () => {
    if (turn !== cardsDrawn) return;
    home.append(...waiting.splice(0, CHUNK).map(card));
    if (waiting.length) setTimeout(some);
  };
  some();
}

/** The card of a finding, open and in sight. */
function showCard(number) {
  if (!document.getElementById(`finding-${number}`)) finishCards();
  let box = document.getElementById(`finding-${number}`);
  if (!box) { apply({ ...NONE }); finishCards(); box = document.getElementById(`finding-${number}`); }
  box.open = true;
  fill(box, number);
  box.scrollIntoView({ block: 'start' });
  box.querySelector('summary').focus({ preventScroll: true });
}

function finishCards() {
  document.getElementById('cards').append(...waiting.splice(0).map(card));
}

function openForPrint() {
  finishCards();
  for (const box of document.querySelectorAll('.card')) {
    if (!box.open) box.dataset.shut = 'yes';
    box.open = true;
    fill(box, Number(box.id.slice(8)), true);
  }
  document.getElementById('legend').open = true;
}

/** Open cards again for the width that there is now. */
function redrawCards() {
  for (const box of document.querySelectorAll('.card[open]')) fill(box, Number(box.id.slice(8)));
}

function shutAfterPrint() {
  for (const box of document.querySelectorAll('.card[data-shut]')) { box.open = false; delete box.dataset.shut; }
  redrawCards();
}
