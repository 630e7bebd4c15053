// What the scenarios share: a Chromium of their own, what it may not do unnoticed, and how they are told and tell.
//
// A scenario reads one JSON value from standard input, and writes what it saw as one line of JSON. It ends with 0 when it
// came to its end and the browser had nothing to complain of; else with 1, and says on standard error why.

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

const CHROMIUM = '/usr/bin/chromium';
// Nothing but this machine has a name or can be reached through a proxy. Playwright adds what keeps a browser quiet, and
// a fresh profile that goes when the browser does.
const FLAGS = [
  '--disable-gpu',
  '--disable-sync',
  '--no-proxy-server',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE [::1], EXCLUDE localhost',
];
// How long one step and a whole visit may take, in milliseconds.
const STEP = 45_000;
const VISIT = 120_000;

const LOOPBACK = ['127.0.0.1', '[::1]', 'localhost'];
// Chromium's note on an answer of 400 and above, which is judged as an answer.
const REFUSED = 'Failed to load resource: the server responded with a status of ';

/** Writes one line of JSON. */
export const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

/** Plays a scenario: `play` is given what it is told, and answers what it saw. */
export const scenario = async (play) => {
  try {
    say(await play(JSON.parse(await text(process.stdin))));
    process.exitCode = 0;
  } catch (error) {
    console.error(error.stack ?? error);
    process.exitCode = 1;
  }
};

/**
 * Opens a browser, lets `visit` use it, and closes it. Throws when the visit does, when it takes too long, and when a
 * page asked for anything off this machine, threw, or wrote an error to its console (as for what its
 * Content-Security-Policy forbids), or when an answer of 400 and above came that `mayFail(response)` does not expect.
 */
export const withBrowser = async (visit, { javaScript = true, mayFail = () => false } = {}) => {
  const complaints = [];
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS, timeout: STEP });
  let timer;
  try {
    const context = await browser.newContext({ javaScriptEnabled: javaScript, acceptDownloads: true });
    context.setDefaultTimeout(STEP);
    context.on('request', (request) => {
      const { protocol, hostname, origin } = new URL(request.url());
      if (/^(https?|wss?):$/.test(protocol) && !LOOPBACK.includes(hostname)) {
        complaints.push(`a request to ${origin}`);
      }
    });
    context.on('response', (response) => {
      if (response.status() >= 400 && !mayFail(response)) {
        complaints.push(`${response.status()} from ${response.request().method()} ${response.url()}`);
      }
    });
    context.on('console', (message) => {
      if (message.type() === 'error' && !message.text().startsWith(REFUSED)) {
        complaints.push(`on the console: ${message.text()}`);
      }
    });
    context.on('weberror', (error) => complaints.push(`thrown: ${error.error().message}`));
    const page = await context.newPage();
    const tooLong = new Promise((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`not done within ${VISIT / 1000} s`)), VISIT);
    });
    const seen = await Promise.race([visit({ context, page }), tooLong]).catch((error) => {
      const where = context.pages().map((open) => open.url()).join(', ');
      throw new Error([`at ${where}: ${error.message}`, ...complaints].join('\n'), { cause: error });
    });
    if (complaints.length > 0) throw new Error(complaints.join('\n'));
    return seen;
  } finally {
    clearTimeout(timer);
    await browser.close();
  }
};

/**
 * What axe finds on a page that keeps people out: violations that are serious or critical, as `rule: where`. It runs in
 * the page, whatever its Content-Security-Policy, but not where JavaScript is off.
 */
export const axe = async (page) => {
  const { violations } = await new AxeBuilder({ page }).analyze();
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target.join(' ')}`));
};

/** The file that the browser saves when `act` is done: its name and bytes. */
export const saved = async (page, act) => {
  const [download] = await Promise.all([page.waitForEvent('download'), act()]);
  return { name: download.suggestedFilename(), bytes: await readFile(await download.path()) };
};

/** What two copies of bytes are compared by. */
export const digest = (bytes) => ({
  length: bytes.length,
  sha256: createHash('sha256').update(bytes).digest('hex'),
});

/**
 * Serves files on a free port until the process ends, and answers the origin: `files[path]` is
 * `{ type, body, headers }`, or a function that answers that when it is asked.
 */
export const serve = async (files) => {
  const server = createServer(async (request, response) => {
    const file = files[new URL(request.url, 'http://127.0.0.1').pathname];
    if (file === undefined) {
      response.writeHead(404).end();
      return;
    }
    const { type, body, headers } = typeof file === 'function' ? await file() : file;
    response.writeHead(200, { 'content-type': type, ...headers }).end(body);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  // It holds no scenario back from its end.
  server.unref();
  return `http://127.0.0.1:${server.address().port}`;
};
