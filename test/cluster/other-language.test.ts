import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { protoFiles, protoFolder } from '../../proto/definitions.js';
import { projectRoot } from '../../scripts/project-root.js';
import { withCluster } from './fixture.js';

const run = promisify(execFile);
/** The system's own: others rarely have Debian's packages. */
const python = '/usr/bin/python3';

async function isInstalled(): Promise<boolean> {
  try {
    await run(python, ['-c', 'import grpc, google.protobuf']);
    await run('protoc', ['--version']);
    return existsSync('/usr/include/google/protobuf/any.proto');
  } catch {
    return false;
  }
}

describe('a client of another language', function () {
  this.timeout(60_000);

  for (const http2 of ['node', 'lean']) {
    it(`speaks every kind of call with the code that protoc generates for Python, --http2 ${http2}`, async function () {
      // Debian: python3-grpcio, python3-protobuf, protobuf-compiler and libprotobuf-dev; `.ci/run`
      // installs them.
      if (!(await isInstalled())) return this.skip();
      return withCluster({ nodes: 1, flags: { http2 } }, async ({ cluster, directory }) => {
        const generated = join(directory, 'generated');
        mkdirSync(generated);
        const files = [...protoFiles, 'google/rpc/status.proto'];
        await run('protoc', [`-I${protoFolder}`, `--python_out=${generated}`, ...files]);
        const client = join(projectRoot, 'test/cluster/other-language.py');
        const { stdout } = await run(python, [client, generated, cluster.endpoints[0] ?? '']);
        expect(stdout).to.equal('all well\n');
      });
    });
  }
});
