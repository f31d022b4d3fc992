/** A program that uses the client at `endpoint`, and must end by itself: run by closing.test.ts. */
import { QuorateClient } from '../../src/client/index.js';
import { KvError } from '../../src/errors.js';

const [mode, endpoint = ''] = process.argv.slice(2);
const key = Buffer.from('k');
const client = new QuorateClient({ endpoints: [endpoint], timeoutMs: 40_000 });

await client.put({ key, value: key });
await client.get({ key });
if (mode === 'idle') {
  process.stdout.write('idle\n');
} else {
  const begun = [
    client.put({ key, value: key }),
    client.txn({ then: [{ put: { key, value: key } }] }),
    client.scan({}).next(),
    client.topology(),
  ];
  const codes = begun.map((call) =>
    call.then(
      () => 'answered',
      (error: unknown) => (error instanceof KvError ? error.code : String(error)),
    ),
  );
  // Sent by then.
  await new Promise((resolve) => setTimeout(resolve, 100));
  client.close();
  process.stdout.write(`${(await Promise.all(codes)).join(' ')}\n`);
}
