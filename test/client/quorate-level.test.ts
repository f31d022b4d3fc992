/** abstract-level's own suite over a real cluster of one node: a space of its own for each store. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { QuorateClient, QuorateLevel, type QuorateLevelOptions } from '../../src/client/index.js';
import { tapeTest } from './tape-case.js';

type Options = Omit<QuorateLevelOptions<string, string>, 'space'>;

interface SuiteOptions {
  readonly test: typeof tapeTest;
  readonly factory: (options?: Options) => QuorateLevel;
}

/** The suite comes without types. */
function loadSuite(): (options: SuiteOptions) => void {
  const loaded: unknown = createRequire(import.meta.url)('abstract-level/test');
  if (typeof loaded !== 'function') throw new TypeError('abstract-level/test is no function');
  return loaded as (options: SuiteOptions) => void;
}

describe('abstract-level: its contract suite over one node', () => {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-level-'));
  let cluster: LocalCluster | undefined;
  // While tests are declared the suite makes a store to look at its manifest, and calls nothing.
  let client = new QuorateClient({ endpoints: ['127.0.0.1:1'] });
  let spaces = 0;

  before(async () => {
    cluster = await LocalCluster.start({ nodes: 1, directory, basePort: 0, flags: {} });
    client = new QuorateClient({ endpoints: cluster.endpoints });
  });

  after(async () => {
    client.close();
    await cluster?.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  loadSuite()({
    test: tapeTest,
    factory: (options) => new QuorateLevel(client, { ...options, space: `suite-${++spaces}` }),
  });
});
