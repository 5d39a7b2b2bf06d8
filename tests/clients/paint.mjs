// How soon the dashboard can be read in headless Chromium, and how large it is; JSON on standard output.
//
// node paint.mjs NODE_MODULES CHROMIUM ADDRESS

import { createRequire } from 'node:module';

const [modules, chromium, address] = process.argv.slice(2);
const puppeteer = createRequire(`${modules}/x.js`)('puppeteer-core');
const browser = await puppeteer.launch({ executablePath: chromium, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
const paints = [];
let bytes = 0;
try {
  const page = await browser.newPage();
  await page.setCacheEnabled(false);
  for (let round = 0; round < 8; round += 1) {
    await page.goto(`${address}/_octocache/`, { waitUntil: 'load' });
    await page.waitForFunction(() => document.getElementById('saved').textContent !== '–');
    paints.push(await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime));
    bytes = await page.evaluate(() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
      .filter((entry) => !entry.name.endsWith('/events')).reduce((sum, entry) => sum + entry.decodedBodySize, 0));
  }
} finally {
  await browser.close();
}
// The first one starts the browser's machinery.
const sorted = paints.slice(1).sort((a, b) => a - b);
console.log(JSON.stringify({ paint: sorted[Math.floor(sorted.length / 2)], bytes }));
