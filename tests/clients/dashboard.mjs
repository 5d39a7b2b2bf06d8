// The dashboard in headless Chromium: what it shows, as JSON on standard output.
//
// node dashboard.mjs NODE_MODULES CHROMIUM ADDRESS CLIENT_ADDRESS SCREENSHOTS SECRET

import { createRequire } from 'node:module';

const [modules, chromium, address, upstreamPath, shots, secret] = process.argv.slice(2);
const puppeteer = createRequire(`${modules}/x.js`)('puppeteer-core');

const browser = await puppeteer.launch({
  executablePath: chromium,
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
});
const seen = { requests: [], bytes: 0, errors: [] };
try {
  const page = await browser.newPage();
  if (secret) await page.authenticate({ username: 'me', password: secret });
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && seen.errors.push(message.text()));
  page.on('dialog', async (dialog) => { seen.errors.push(`a dialog: ${dialog.message()}`); await dialog.dismiss(); });
  page.on('request', (request) => seen.requests.push(request.url()));
  await page.setViewport({ width: 1280, height: 900 });
  // Once to start the browser's machinery, then as somebody sees it.
  await page.goto(`${address}/_octocache/`, { waitUntil: 'load' });
  seen.requests.length = 0;
  await page.goto(`${address}/_octocache/`, { waitUntil: 'load' });
  const text = (id) => page.$eval(`#${id}`, (element) => element.textContent);
  await page.waitForFunction(() => document.getElementById('link').textContent === 'live' && document.getElementById('saved').textContent !== '–');
  seen.paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
  seen.bytes = await page.evaluate(() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
    .filter((entry) => !entry.name.endsWith('/events')).reduce((sum, entry) => sum + entry.decodedBodySize, 0));
  seen.before = { saved: await text('saved'), sent: await text('sent'), charged: await text('charged') };
  seen.limits = await text('limits');
  seen.busiest = await text('busiest');
  seen.tiers = await text('tiers');
  seen.shared = await text('shared');
  // A request of a client's, while the page is open.
  const headers = { Authorization: 'Bearer ghp_ClientClientClientClientClientClient', 'X-Octocache-Secret': secret ?? '' };
  await fetch(`${address}${upstreamPath}`, { headers });
  await page.waitForFunction((before) => document.getElementById('sent').textContent !== before, {}, seen.before.sent);
  seen.after = { saved: await text('saved'), sent: await text('sent'), charged: await text('charged') };
  await page.waitForFunction(() => document.querySelectorAll('#lines tbody tr').length > 0);
  seen.lines = await text('lines');
  await page.waitForFunction(() => !document.getElementById('problem').hidden);
  seen.problem = await text('problem');
  seen.injected = await page.$$eval('img, body script:not([src^="/_octocache/"])', (all) => all.length);
  seen.widest = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  await page.screenshot({ path: `${shots}/light.png`, fullPage: true });
  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  seen.light = await back();
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
  seen.dark = await back();
  await page.setViewport({ width: 390, height: 844, isMobile: true, hasTouch: true });
  seen.widestOnPhone = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  await page.screenshot({ path: `${shots}/phone-dark.png`, fullPage: true });
  await page.setViewport({ width: 1280, height: 900 });
  // The keyboard: the first stop is the way past the head, and the pause can be reached and pressed.
  await page.evaluate(() => { document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex'); });
  await page.keyboard.press('Tab');
  seen.firstStop = await page.evaluate(() => document.activeElement.textContent);
  for (let stops = 0; stops < 20 && (await page.evaluate(() => document.activeElement.id)) !== 'pause'; stops += 1) {
    await page.keyboard.press('Tab');
  }
  await page.keyboard.press('Enter');
  seen.pressed = await page.$eval('#pause', (button) => button.getAttribute('aria-pressed'));
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
