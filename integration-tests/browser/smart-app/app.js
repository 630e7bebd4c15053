// Shows the Tasks of the patient that it was launched for, and saves their documents.

const attachmentOf = (document) => document.content[0].attachment;

const download = async (client, task, document) => {
  const { contentType, title, url } = attachmentOf(document);
  const answer = await client.request({
    url: `${url}?task=Task/${task.id}`,
    headers: { accept: contentType },
  });
  const link = globalThis.document.createElement('a');
  link.href = URL.createObjectURL(await answer.blob());
  link.download = `${title}.pdf`;
  link.click();
};

const show = async (client, task) => {
  const { reference } = task.input[0].valueReference;
  const document = await client.request(reference);
  const item = globalThis.document.createElement('li');
  Object.assign(item.dataset, { task: task.id, status: task.status, document: document.id });
  const button = globalThis.document.createElement('button');
  button.textContent = attachmentOf(document).title;
  button.addEventListener('click', () => download(client, task, document));
  item.append(button);
  globalThis.document.querySelector('ul').append(item);
};

const run = async () => {
  const settings = await (await fetch('settings.json')).json();
  const client = await FHIR.oauth2.init({ ...settings, redirectUri: '/' });
  globalThis.client = client;
  const found = await client.request(`Task?patient=${client.patient.id}`);
  for (const { resource } of found.entry ?? []) await show(client, resource);
  globalThis.document.querySelector('[role=status]').textContent = `Ready: ${client.getFhirUser()}, ${client.patient.id}`;
};

run();
