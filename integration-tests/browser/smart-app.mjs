// A SMART app on an origin of its own, launched standalone in Chromium: says that origin at once, then is told
//   { iss, who, asks }  the FHIR base, who signs in at the provider, and paths below the base to ask for afterwards
// and says what the launch brought, the Tasks that the app shows, what it saved of the first one's document, and each
// answer to what was asked.

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { digest, saved, say, scenario, serve, withBrowser } from './browser.mjs';

const SCOPE = 'launch/patient openid fhirUser patient/Task.rs patient/DocumentReference.rs patient/Binary.rs';

const HTML = 'text/html; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "connect-src 'self' http://127.0.0.1:*",
  "img-src data:",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

let settings;

// The app's own files, and the library as it is published for browsers. (What it needs in Node alone brings hundreds of
// packages with it, so `overrides` in package.json puts a small one in its place.)
const file = async (name, type, headers = {}) => (
  { type, headers, body: await readFile(new URL(`smart-app/${name}`, import.meta.url)) }
);
const library = fileURLToPath(import.meta.resolve('fhirclient/build/fhir-client.min.js'));
const origin = await serve({
  '/': await file('index.html', HTML, { 'content-security-policy': POLICY }),
  '/app.js': await file('app.js', SCRIPT),
  '/fhir-client.js': { type: SCRIPT, body: await readFile(library) },
  '/settings.json': () => ({ type: 'application/json', body: JSON.stringify(settings) }),
});
say({ origin });

// What goes over the wire when the app asks its library for a path, and what the library makes of it.
const ask = async (page, path) => {
  const url = `${settings.iss}/${path}`;
  const [response, heard] = await Promise.all([
    page.waitForResponse((one) => one.url() === url && one.request().method() === 'GET'),
    page.evaluate((wanted) => globalThis.client
      .request({ url: wanted, includeResponse: true })
      .then((answer) => answer.response.status, (error) => error.status ?? error.message), path),
  ]);
  return { path, heard, status: response.status(), headers: await response.allHeaders(), body: await response.text() };
};

await scenario(async ({ iss, who, asks }) => {
  settings = { iss, clientId: 'smart-app', scope: SCOPE };
  const mayFail = (response) => asks.some((path) => response.url() === `${iss}/${path}`);
  return withBrowser(async ({ context, page }) => {
    const authorizing = context.waitForEvent('request', {
      predicate: (request) => new URL(request.url()).searchParams.has('code_challenge'),
    });
    await page.goto(origin);
    const authorize = Object.fromEntries(new URL((await authorizing).url()).searchParams);
    await page.getByRole('button', { name: who }).click();
    await page.waitForURL((url) => url.origin === origin);
    await page.getByRole('main').getByRole('status').filter({ hasText: 'Ready' }).waitFor();

    const launch = await page.evaluate(() => {
      const { client } = globalThis;
      const { token_type: type, scope } = client.state.tokenResponse;
      return { patient: client.patient.id, user: client.getFhirUser(), type, scope: scope.split(' ').sort() };
    });
    const tasks = await page.getByRole('listitem').evaluateAll(
      (items) => items.map((item) => ({ ...item.dataset, title: item.querySelector('button').textContent })),
    );
    const file = await saved(page, () => page.getByRole('listitem').first().getByRole('button').click());
    const answers = [];
    for (const path of asks) answers.push(await ask(page, path));
    return { authorize, launch, tasks, saved: { name: file.name, ...digest(file.bytes) }, answers };
  }, { mayFail });
});
