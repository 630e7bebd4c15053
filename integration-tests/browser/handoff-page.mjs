// A person opens a link, signs in, looks, downloads, tries again, asks for a fresh link and signs out. Told
//   { link, label, who, javaScript }  the link with its code, the way to sign in, who does, whether scripts run
// it says what each page showed, what axe found on it, what was saved, and every request that carried the code.

import { axe, digest, saved, scenario, withBrowser } from './browser.mjs';

// What a page says, as a person would read it.
const look = async (page, javaScript) => ({
  path: new URL(page.url()).pathname,
  hash: new URL(page.url()).hash,
  title: await page.title(),
  heading: await page.getByRole('heading', { level: 1 }).textContent(),
  text: (await page.getByRole('main').innerText()).replace(/\s+/g, ' '),
  axe: javaScript ? await axe(page) : [],
});

await scenario(async ({ link, label, who, javaScript }) => {
  const code = new URL(link).hash.slice(1);
  const origin = new URL(link).origin;
  // The second download is refused, on purpose.
  const mayFail = (response) => response.status() === 403 && response.url().startsWith(`${origin}/handoff/`);
  return withBrowser(async ({ context, page }) => {
    const carried = [];
    context.on('request', (request) => {
      const said = [request.url(), request.postData() ?? '', ...Object.values(request.headers())];
      if (said.some((text) => text.includes(code))) {
        carried.push(`${request.method()} ${new URL(request.url()).pathname}`);
      }
    });
    const pages = {};
    const see = async (name) => { pages[name] = await look(page, javaScript); };

    await page.goto(link);
    await see('stranger');
    await page.getByRole('link', { name: label }).click();
    await page.getByRole('button', { name: who }).click();
    await page.waitForURL((url) => url.origin === origin);
    if (!javaScript) {
      await see('code');
      await page.getByLabel('Your code').fill(code);
      await page.getByRole('button', { name: 'Open' }).click();
    }
    const download = page.getByRole('button', { name: 'Download' });
    await download.waitFor();
    await see('document');
    // By keyboard alone.
    await download.focus();
    const file = await saved(page, () => page.keyboard.press('Enter'));
    const bytes = digest(file.bytes);

    await download.click();
    await page.getByRole('button', { name: 'Ask for a fresh link' }).waitFor();
    await see('used');
    await page.getByRole('button', { name: 'Ask for a fresh link' }).click();
    await page.getByRole('heading', { name: 'You have asked for a fresh link' }).waitFor();
    await see('asked');

    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
    await see('out');
    const cookies = (await context.cookies(origin)).map((cookie) => cookie.name)
      .filter((name) => name.includes('handoff'));
    return { pages, saved: { name: file.name, ...bytes }, carried, cookies };
  }, { javaScript, mayFail });
});
