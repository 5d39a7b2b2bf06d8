// The dashboard: numbers come as server-sent events and are put into the page as text, never as markup.
'use strict';

const MAX_LINES = 200;
const MAX_POINTS = 360;
const $ = (id) => document.getElementById(id);
const count = new Intl.NumberFormat('en');
const points = [];
const waiting = [];
let paused = false;

const say = (id, text) => {
  const at = $(id);
  if (at.textContent !== text) at.textContent = text;
};
const clock = (time) => (time ? new Date(time).toLocaleTimeString() : '–');
const bytes = (n) => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return `${at === 0 ? n : n.toFixed(1)} ${units[at]}`;
};
const left = (time, now) => {
  const secs = Math.max(0, Math.round((new Date(time) - new Date(now)) / 1000));
  if (secs < 90) return `${secs} s`;
  return secs < 5400 ? `${Math.round(secs / 60)} min` : `${(secs / 3600).toFixed(1)} h`;
};

// One row; a cell is a text, or [text, class].
const row = (cells) => {
  const tr = document.createElement('tr');
  for (const cell of cells) {
    const td = tr.insertCell();
    const [text, kind] = Array.isArray(cell) ? cell : [cell, ''];
    td.textContent = text;
    if (kind) td.className = kind;
  }
  return tr;
};
const fill = (id, rows, none) => {
  const body = $(id).tBodies[0];
  const empty = () => {
    const tr = row([[none, 'w']]);
    tr.cells[0].colSpan = 9;
    return tr;
  };
  body.replaceChildren(...(rows.length ? rows.map(row) : [empty()]));
};

const draw = (id, values, top) => {
  // Five minutes fill the width, until there are more.
  const width = Math.max(values.length, 30);
  const at = values.map((value, n) => {
    const x = ((width - values.length + n) * 600) / (width - 1);
    const y = 85 - 80 * Math.min(value / top, 1);
    return `${n === 0 ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`;
  });
  $(id).firstElementChild.setAttribute('d', at.join(''));
};

const overTime = () => {
  const rates = [];
  const savings = [];
  for (let n = 1; n < points.length; n += 1) {
    const asked = points[n].asked - points[n - 1].asked;
    const saved = points[n].saved - points[n - 1].saved;
    // Where nobody asked, the share is what it was.
    if (asked > 0 || rates.length) rates.push(asked > 0 ? (100 * saved) / asked : rates.at(-1));
    savings.push(saved);
  }
  draw('rate', rates, 100);
  draw('saving', savings, Math.max(...savings, 1));
  say('rate-now', rates.length ? `${rates.at(-1).toFixed(1)} %` : '–');
  say('saving-now', savings.length ? count.format(savings.at(-1)) : '–');
};

const remember = (point) => {
  const last = points.at(-1);
  if (!last || new Date(point.at) - new Date(last.at) >= 10000) points.push(point);
  if (points.length > MAX_POINTS) points.shift();
};

const logged = () => {
  if (paused || !waiting.length) return;
  const body = $('lines').tBodies[0];
  for (const line of waiting.splice(0)) {
    const kind = line.outcome === 'failed' || line.outcome === 'stale' ? line.outcome : '';
    const what = line.detail ? `${line.outcome} (${line.detail})` : line.outcome;
    body.prepend(row([clock(line.at), [`${line.method} ${line.target}`, 'w'], [what, kind], [String(line.status), 'n'],
      [(line.micros / 1000).toFixed(2), 'n'], [line.id, 'mono']]));
  }
  while (body.rows.length > MAX_LINES) body.lastElementChild.remove();
};

// A place beyond this machine, in words.
const place = ({ name, tallied: t }) => {
  const state = t.connected === null ? (t.up ? 'answers' : 'left alone for the moment') : `${count.format(t.connected)} connected`;
  const trouble = [[t.refused, 'refused'], [t.failed, 'failed'], [t.dropped, 'dropped']].filter(([many]) => many > 0);
  return `${name}: ${state}; ${count.format(t.hits)} of ${count.format(t.looked_up)} found, ${count.format(t.written)} left there${trouble.map(([many, what]) => `, ${count.format(many)} ${what}`).join('')}.`;
};

const show = (now) => {
  const t = now.totals;
  say('about', `${now.version}, for ${now.api}, since ${new Date(now.started_at).toLocaleString()}`);
  say('hit_rate', t.asked ? `${t.hit_rate.toFixed(1)} %` : '–');
  for (const id of ['saved', 'charged', 'sent', 'stale', 'failed', 'passed']) say(id, count.format(t[id]));
  say('connections', `${count.format(t.connections)}, of ${count.format(t.clients)} known clients with a token`);
  fill('limits', now.limits.map((limit) => [limit.kind === 'own' ? "this server's" : limit.kind === 'client' ? "a client's" : 'without a token',
    limit.resource, [count.format(limit.remaining), limit.blocked_until ? 'n failed' : 'n'], [count.format(limit.limit), 'n'],
    `${clock(limit.reset_at)} (${left(limit.reset_at, now.now)})`]), 'nothing known yet: GitHub tells with its first answer');
  fill('busiest', now.busiest.map((one) => [[one.target, 'w'], [count.format(one.answers), 'n'], [count.format(one.asked), 'n']]), now.details ? 'none yet' : 'shown with the secret, or on the Unix socket');
  say('stale-why', now.stale.length ? now.stale.map((one) => `${one.reason}: ${count.format(one.count)}`).join(', ') : 'none');
  fill('stale-lines', now.stale_lines.map((line) => [clock(line.at), [`${line.method} ${line.target}`, 'w'], [line.detail, 'stale']]), now.details ? 'none' : 'shown with the secret, or on the Unix socket');
  fill('tiers', now.tiers.map((tier) => [tier.name, [count.format(tier.entries), 'n'], [bytes(tier.bytes), 'n'], [count.format(tier.hits), 'n']]), '');
  say('shared', now.shared.length ? now.shared.map(place).join(' ') : 'Not shared beyond this machine.');
  say('warm-next', now.warm?.next ? `${new Date(now.warm.next).toLocaleString()} (${left(now.warm.next, now.now)})` : 'no schedule');
  say('warm-last', now.warm?.last ? `${new Date(now.warm.last).toLocaleString()}: ${now.warm.done} done, ${now.warm.failed} failed, ${count.format(now.warm.refreshed)} refreshed` : 'none yet');
  say('webhook', now.webhook ? `${count.format(now.webhook.accepted)} accepted, ${count.format(now.webhook.applied)} applied, ${count.format(now.webhook.repeated)} repeated, ${count.format(now.webhook.refused)} refused` : 'not set up');
  say('config', `read ${new Date(now.config.read_at).toLocaleString()}`);
  $('problem').hidden = !now.config.error;
  say('problem', now.config.error ? `The new configuration is not sound; the old one is in force. ${now.config.error}` : '');
  if (now.history) points.splice(0, points.length, ...now.history);
  remember(now.point);
  overTime();
  waiting.push(...now.lines);
  waiting.splice(0, Math.max(0, waiting.length - MAX_LINES));
  logged();
};

$('pause').addEventListener('click', () => {
  paused = !paused;
  $('pause').setAttribute('aria-pressed', String(paused));
  say('pause', paused ? 'Go on' : 'Pause');
  logged();
});

const link = (kind, text) => {
  $('link').className = kind;
  say('link', text);
};
const source = new EventSource('/_octocache/events');
source.onopen = () => link('live', 'live');
source.onerror = () => link('lost', 'the server does not answer; trying again…');
source.onmessage = (event) => show(JSON.parse(event.data));
