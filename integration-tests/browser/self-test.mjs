// What the scenarios count on: that the browser's complaints are noticed, and what it saves and axe finds is told. Needs
// no input, and says what each faulty page led to.

import { axe, saved, scenario, serve, withBrowser } from './browser.mjs';

const page = (body, headers) => ({
  type: 'text/html; charset=utf-8',
  headers,
  body: `<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,"><main>${body}</main></html>`,
});

const origin = await serve({
  '/good': page('<h1>Good</h1><a href="/file" download="a.txt">Save</a>'),
  '/file': { type: 'text/plain', body: 'saved' },
  '/unlabelled': page('<h1>Unlabelled</h1><input>'),
  '/without-script': page('<h1>Before</h1><script>document.querySelector("h1").textContent = "After"</script>'),
  '/elsewhere': page('<img alt="" src="http://elsewhere.example/pixel.png">'),
  '/forbidden': page('<script>document.title = "ran"</script>', { 'content-security-policy': "script-src 'self'" }),
  '/throws': page('<script>throw new Error("on purpose")</script>'),
  '/missing': page('<img alt="" src="/none.png">'),
});

const complaint = (path, options) => withBrowser(({ page: open }) => open.goto(origin + path), options)
  .then(() => 'none', (error) => error.message.replaceAll(origin, ''));

await scenario(() => withBrowser(async ({ page: open }) => {
  await open.goto(`${origin}/good`);
  const file = await saved(open, () => open.getByRole('link').click());
  const good = await axe(open);
  await open.goto(`${origin}/unlabelled`);
  const unlabelled = await axe(open);
  const heading = await withBrowser(async ({ page: still }) => {
    await still.goto(`${origin}/without-script`);
    return still.getByRole('heading').textContent();
  }, { javaScript: false });
  return {
    saved: { name: file.name, text: file.bytes.toString() },
    axe: { good, unlabelled },
    withoutScript: heading,
    elsewhere: await complaint('/elsewhere'),
    forbidden: await complaint('/forbidden'),
    throws: await complaint('/throws'),
    missing: await complaint('/missing'),
    expected: await complaint('/missing', { mayFail: (response) => response.status() === 404 }),
  };
}));
