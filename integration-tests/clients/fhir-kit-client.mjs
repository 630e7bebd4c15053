// A subscriber on fhir-kit-client with an endpoint of its own. Is told
//   { base, subscriber, mover, subscription, task, statuses }
// the FHIR base, the tokens of who subscribes and of who moves the Task, a Subscription without its endpoint, and through
// which statuses the Task goes. Subscribes, moves the Task, asks for status and events, ends the subscription; and says
// what each of that was answered, and what its endpoint received.

import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { Client } from 'fhir-kit-client';
import { scenario } from '../browser/browser.mjs';

// How long anything may take, in milliseconds.
const PATIENCE = 45_000;

const received = [];
let heard = () => {};
const server = createServer(async (request, response) => {
  const { 'content-type': contentType, authorization } = request.headers;
  const body = await text(request);
  response.writeHead(204).end();
  received.push({ contentType, authorization, body });
  heard();
});

// Waits until `enough()`, which is asked again whenever something was received.
const until = (enough) => new Promise((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error(`received only ${JSON.stringify(received)}`)), PATIENCE);
  heard = () => {
    if (enough()) {
      clearTimeout(timer);
      resolve();
    }
  };
  heard();
});

const statusOf = (answer) => Client.httpFor(answer).response.status;

const parameters = (values) => ({
  resourceType: 'Parameters',
  parameter: Object.entries(values).map(([name, valueString]) => ({ name, valueString })),
});

await scenario(async ({ base, subscriber, mover, subscription, task, statuses }) => {
  await new Promise((listening) => { server.listen(0, '127.0.0.1', listening); });
  const client = new Client({ baseUrl: base, bearerToken: subscriber });
  const moving = new Client({ baseUrl: base, bearerToken: mover });
  const resourceType = 'Subscription';
  try {
    const endpoint = `http://127.0.0.1:${server.address().port}/notifications`;
    const body = { ...subscription, channel: { ...subscription.channel, endpoint } };
    const made = await client.create({ resourceType, body });
    const { id } = made;
    // It is active soon after its handshake was answered.
    const deadline = Date.now() + PATIENCE;
    while ((await client.read({ resourceType, id })).status !== 'active') {
      if (Date.now() > deadline) throw new Error('the subscription does not become active');
    }
    for (const status of statuses) {
      const current = await moving.read({ resourceType: 'Task', id: task });
      await moving.update({ resourceType: 'Task', id: task, body: { ...current, status } });
    }
    await until(() => received.length > statuses.length);

    const ask = (name, method, input) => client.operation({ name, resourceType, id, method, input });
    const seen = {
      created: statusOf(made),
      made,
      statusByGet: await ask('status', 'GET'),
      statusByPost: await ask('$status', 'POST'),
      eventsByGet: await ask('events', 'GET', { eventsSinceNumber: 2, eventsUntilNumber: 3 }),
      eventsByPost: await ask('$events', 'POST', parameters({ eventsUntilNumber: '2' })),
    };
    const found = await client.search({ resourceType, searchParams: { url: endpoint, status: 'active' } });
    seen.found = found.entry.map((entry) => entry.resource.id);
    seen.deleted = statusOf(await client.delete({ resourceType, id }));
    seen.afterwards = await client.read({ resourceType, id }).then(statusOf, (error) => error.response.status);
    return { ...seen, received };
  } finally {
    server.close();
    server.closeAllConnections();
  }
});
