import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
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

/** Where Debian has the sources of packages for Go. */
const goLibraries = '/usr/share/gocode';

async function hasGo(): Promise<boolean> {
  try {
    for (const program of ['protoc', 'protoc-gen-go', 'protoc-gen-go-grpc'])
      await run(program, ['--version']);
    await run('go', ['version']);
    return ['google.golang.org/grpc', 'google.golang.org/protobuf'].every((library) =>
      existsSync(join(goLibraries, 'src', library)),
    );
  } catch {
    return false;
  }
}

/** Writes the program to `path`; its sources go below `workspace`. */
async function buildGo(workspace: string, path: string): Promise<void> {
  const generated = join(workspace, 'src/quorate/pb');
  mkdirSync(generated, { recursive: true });
  const files = ['kv.proto', 'errors.proto'];
  const options = ['paths=source_relative', ...files.map((file) => `M${file}=quorate/pb`)].join();
  await run('protoc', [
    `-I${protoFolder}`,
    `--go_out=${options}:${generated}`,
    `--go-grpc_out=${options}:${generated}`,
    ...files,
  ]);
  const source = join(projectRoot, 'test/cluster/other-language.go');
  const env = { ...process.env, GO111MODULE: 'off', GOPATH: `${workspace}:${goLibraries}` };
  await run('go', ['build', '-ldflags=-s -w', '-o', path, source], { env, cwd: workspace });
}

describe('a client in Go', function () {
  this.timeout(60_000);
  let workspace: string | undefined;
  let program = '';

  before(async function () {
    // Debian: golang-go, golang-google-grpc-dev, golang-github-golang-protobuf-1-5-dev, protoc-gen-go and
    // protoc-gen-go-grpc; `.ci/run` installs them.
    if (!(await hasGo())) return this.skip();
    this.timeout(180_000);
    workspace = mkdtempSync(join(tmpdir(), 'quorate-go-'));
    program = join(workspace, 'client');
    await buildGo(workspace, program);
  });
  after(() => {
    if (workspace !== undefined) rmSync(workspace, { recursive: true, force: true });
  });

  for (const http2 of ['node', 'lean']) {
    it(`speaks every kind of call, gives calls up, and comes back to a node that was stopped, --http2 ${http2}`, () =>
      withCluster({ nodes: 1, flags: { http2 } }, async ({ cluster }) => {
        const running = run(program, [cluster.endpoints[0] ?? '']);
        const { stdin, stdout } = running.child;
        stdout?.on('data', (chunk: Buffer | string) => {
          const said = chunk.toString();
          if (said === 'stop\n') void cluster.terminate(1).then(() => stdin?.write('stopped\n'));
          else if (said === 'start\n') cluster.startNode(1);
        });
        expect((await running).stdout).to.equal('stop\nstart\nall well\n');
      }));
  }
});

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
