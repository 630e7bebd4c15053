// A certified OpenID Connect provider on loopback, which issues the access tokens
// that the tests show to Handoff. It prints one line, `issuer URL`, once it listens.
//
// A token comes from the discovered token endpoint with
//   grant_type=client_credentials, client_id=NAME, client_secret=test-only-not-a-secret,
//   resource=https://handoff.example/fhir (another audience: https://elsewhere.example/fhir)
// and carries the claims of the client below. Tokens of the clients whose name ends in
// `-es256` are signed with ES256, of those in `-opaque` they are opaque, the others are
// signed with RS256. `gateway` may introspect all of them.
//
// `app` is a public client for the authorization code flow with PKCE: people of the cast
// sign in on a page without a password. `smart-app` is one that runs in a browser, on any
// port of 127.0.0.1: it may call the token endpoint from there, and learns there which patient
// it was launched for. `backend` authenticates with private_key_jwt by the keys in CLIENT_JWKS.
//
// `pages` is the server under test itself, at the base URL in PAGES.
//
// PORT takes a certain port. A line `rotate` on standard input replaces the signing keys.

import { webcrypto } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

const SECRET = 'test-only-not-a-secret';
const AUDIENCE = 'https://handoff.example/fhir';
const OTHER_AUDIENCE = 'https://elsewhere.example/fhir';
const SCOPES = [
  'system/*.cruds user/*.cruds patient/*.rs launch/patient',
  'patient/Task.rs patient/DocumentReference.rs patient/Binary.rs',
].join(' ');
// The patient of every launch.
const PATIENT = 'ada';
// Where the apps are called back; a native app's loopback address may have any port.
const CALLBACK = 'http://127.0.0.1/callback';
const BROWSER_CALLBACK = 'http://127.0.0.1/';

const cast = {
  ehr: { roles: ['placer'], fhirUser: 'Organization/referring-clinic' },
  lane: { roles: ['physician'], teams: ['cardiology'], fhirUser: 'Practitioner/lane', name: 'Dr. Lane' },
  otis: { roles: ['physician'], teams: ['oncology'], fhirUser: 'Practitioner/otis' },
  clerk: { roles: ['team-member'], teams: ['cardiology'], fhirUser: 'Practitioner/clerk' },
  interface: { roles: ['subscriber'] },
  operator: { roles: ['operator'] },
  records: { roles: ['records-manager'] },
  auditor: { roles: ['auditor'] },
  stranger: { roles: ['physician'], fhirUser: 'Practitioner/stranger' },
  nobody: {},
};

const people = ['lane', 'otis', 'clerk'];

// Backend services with keys of their own.
const services = { backend: { roles: ['subscriber'] } };

const claimsOf = (name) => ({ ...services, ...cast })[name.replace(/-(es256|opaque)$/, '')] ?? {};
const algorithmOf = (clientId) => (clientId.endsWith('-es256') ? 'ES256' : 'RS256');

let generation = 0;

const signingKey = async (alg) => {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: `test-${alg.toLowerCase()}-${generation}` };
};

const client = (clientId) => ({
  client_id: clientId,
  client_secret: SECRET,
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
  token_endpoint_auth_method: 'client_secret_post',
});

const publicClient = (clientId, callback) => ({
  client_id: clientId,
  application_type: 'native',
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  redirect_uris: [callback],
  token_endpoint_auth_method: 'none',
});

const gateway = { ...client('gateway'), token_endpoint_auth_method: 'client_secret_basic' };

// The server's own pages, where people sign in with a browser.
const pages = (base) => ({
  client_id: 'pages',
  client_secret: SECRET,
  grant_types: ['authorization_code'],
  response_types: ['code'],
  redirect_uris: [`${base}/sign-in/callback`],
  post_logout_redirect_uris: [`${base}/signed-out`],
  backchannel_logout_uri: `${base}/sign-out/back-channel`,
  backchannel_logout_session_required: true,
  token_endpoint_auth_method: 'client_secret_basic',
});

const backend = () => ({
  client_id: 'backend',
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
  token_endpoint_auth_method: 'private_key_jwt',
  jwks: JSON.parse(process.env.CLIENT_JWKS),
});

// What the access token says of its bearer: a person who signed in, or the client itself.
const claimsIn = (_ctx, token) => {
  const claims = { ...claimsOf(token.accountId ?? token.clientId) };
  if (token.accountId && token.scope?.includes('launch/patient')) {
    claims.patient = PATIENT;
  }
  return claims;
};

const configuration = async () => ({
  clients: [
    ...Object.keys(cast).flatMap((name) => ['', '-es256', '-opaque'].map((kind) => client(name + kind))),
    publicClient('app', CALLBACK),
    publicClient('smart-app', BROWSER_CALLBACK),
    gateway,
    ...(process.env.CLIENT_JWKS ? [backend()] : []),
    ...(process.env.PAGES ? [pages(process.env.PAGES)] : []),
  ],
  jwks: { keys: [await signingKey('RS256'), await signingKey('ES256')] },
  cookies: { keys: ['test only'] },
  scopes: [...SCOPES.split(' '), 'openid', 'offline_access', 'fhirUser'],
  claims: { openid: ['sub', 'sid', 'roles', 'teams', 'name'], fhirUser: ['fhirUser'] },
  // SMART: `fhirUser` is in the id token.
  conformIdTokenClaims: false,
  clientBasedCORS: (_ctx, origin, asking) => asking.clientId === 'smart-app' && /^http:\/\/127\.0\.0\.1:\d+$/.test(origin),
  findAccount: (_ctx, id) => (people.includes(id)
    ? { accountId: id, claims: () => ({ sub: id, ...cast[id] }) }
    : undefined),
  // Without its guard against requests to loopback, where the server under test is.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  ttl: { ClientCredentials: 3600, AccessToken: 3600, RefreshToken: 3600 },
  extraTokenClaims: claimsIn,
  enabledJWA: {
    clientAuthSigningAlgValues: ['RS384', 'ES384'],
    dPoPSigningAlgValues: ['ES256'],
  },
  features: {
    backchannelLogout: { enabled: true },
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    dPoP: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (_ctx, asking) => asking.clientId === 'gateway' },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => AUDIENCE,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource, of) => ({
        audience: resource === OTHER_AUDIENCE ? OTHER_AUDIENCE : AUDIENCE,
        scope: SCOPES,
        accessTokenFormat: of.clientId.endsWith('-opaque') ? 'opaque' : 'jwt',
        accessTokenTTL: 3600,
        jwt: { sign: { alg: algorithmOf(of.clientId) } },
      }),
    },
  },
});

// The page on which a person signs in, and agrees by doing so.
const signIn = async (provider, request, response) => {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login' && request.method === 'GET') {
    const buttons = people.map((name) => `<button name="who" value="${name}">${name}</button>`).join('');
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
    response.end(`<!doctype html><html lang="en"><title>Sign in</title><link rel="icon" href="data:,"><main><h1>Sign in</h1><form method="post">${buttons}</form></main></html>`);
    return;
  }
  let result;
  if (prompt.name === 'login') {
    let body = '';
    for await (const chunk of request) body += chunk;
    result = { login: { accountId: new URLSearchParams(body).get('who') } };
  } else {
    const grant = grantId
      ? await provider.Grant.find(grantId)
      : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    grant.addResourceScope(AUDIENCE, SCOPES);
    result = { consent: { grantId: await grant.save() } };
  }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
};

// SMART App Launch: the token response names the patient in context.
const nameThePatient = async (ctx, next) => {
  await next();
  const granted = ctx.oidc?.route === 'token' && ctx.status === 200 ? ctx.body?.scope ?? '' : '';
  if (granted.split(' ').includes('launch/patient')) ctx.body.patient = PATIENT;
};

// Node 18 knows Web Crypto only as a module.
globalThis.crypto ??= webcrypto;

// The issuer's name holds the port, so the listener comes first.
let handle = (_request, response) => response.writeHead(503).end();
const server = createServer((request, response) => handle(request, response));
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const renew = async () => {
    const provider = new Provider(issuer, await configuration());
    provider.use(nameThePatient);
    provider.on('backchannel.error', (_ctx, error) => console.error('back-channel:', error.message));
    provider.on('server_error', (_ctx, error) => console.error('server error:', error.message));
    const callback = provider.callback();
    handle = (request, response) => {
      if (!request.url.startsWith('/interaction/')) return callback(request, response);
      return signIn(provider, request, response).catch((error) => {
        console.error('sign-in:', error.message);
        response.writeHead(400).end();
      });
    };
  };
  await renew();
  console.log(`issuer ${issuer}`);
  createInterface({ input: process.stdin }).on('line', async (line) => {
    if (line !== 'rotate') return;
    generation += 1;
    await renew();
    console.log('rotated');
  });
});
