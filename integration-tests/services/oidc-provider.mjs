// A certified OpenID Connect provider on loopback, which issues the JWT access tokens
// that the tests show to Handoff. It prints one line, `issuer URL`, once it listens.
//
// A token comes from the discovered token endpoint with
//   grant_type=client_credentials, client_id=NAME, client_secret=test-only-not-a-secret,
//   resource=https://handoff.example/fhir (another audience: https://elsewhere.example/fhir)
// and carries the claims of the client below. Tokens of the clients whose name ends in
// `-es256` are signed with ES256, the others with RS256.

import { webcrypto } from 'node:crypto';
import { createServer } from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

const SECRET = 'test-only-not-a-secret';
const AUDIENCE = 'https://handoff.example/fhir';
const OTHER_AUDIENCE = 'https://elsewhere.example/fhir';
const SCOPES = 'system/*.cruds user/*.cruds';

const cast = {
  ehr: { roles: ['placer'], fhirUser: 'Organization/referring-clinic' },
  lane: { roles: ['physician'], teams: ['cardiology'], fhirUser: 'Practitioner/lane' },
  otis: { roles: ['physician'], teams: ['oncology'], fhirUser: 'Practitioner/otis' },
  clerk: { roles: ['team-member'], teams: ['cardiology'], fhirUser: 'Practitioner/clerk' },
  interface: { roles: ['subscriber'] },
  operator: { roles: ['operator'] },
  records: { roles: ['records-manager'] },
  auditor: { roles: ['auditor'] },
  stranger: { roles: ['physician'], fhirUser: 'Practitioner/stranger' },
  nobody: {},
};

const claimsOf = (clientId) => cast[clientId.replace(/-es256$/, '')] ?? {};
const algorithmOf = (clientId) => (clientId.endsWith('-es256') ? 'ES256' : 'RS256');

const signingKey = async (alg) => {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: `test-${alg.toLowerCase()}` };
};

const client = (clientId) => ({
  client_id: clientId,
  client_secret: SECRET,
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
  token_endpoint_auth_method: 'client_secret_post',
});

const configuration = async () => ({
  clients: Object.keys(cast).flatMap((name) => [client(name), client(`${name}-es256`)]),
  jwks: { keys: [await signingKey('RS256'), await signingKey('ES256')] },
  scopes: SCOPES.split(' '),
  ttl: { ClientCredentials: 3600 },
  extraTokenClaims: (_ctx, token) => claimsOf(token.clientId),
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => AUDIENCE,
      getResourceServerInfo: (_ctx, resource, of) => ({
        audience: resource === OTHER_AUDIENCE ? OTHER_AUDIENCE : AUDIENCE,
        scope: SCOPES,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 3600,
        jwt: { sign: { alg: algorithmOf(of.clientId) } },
      }),
    },
  },
});

// Node 18 knows Web Crypto only as a module.
globalThis.crypto ??= webcrypto;

// The issuer's name holds the port, so the listener comes first.
let handle = (_request, response) => response.writeHead(503).end();
const server = createServer((request, response) => handle(request, response));
server.listen(0, '127.0.0.1', async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, await configuration());
  provider.on('server_error', (_ctx, error) => console.error('server error:', error.message));
  handle = provider.callback();
  console.log(`issuer ${issuer}`);
});
