/** The steps of docs/operations.md, as a newcomer would take them. */
import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const here = import.meta.dirname;
const extension = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
const root = join(here, extension === 'ts' ? '../..' : '../../..');
const quorate = join(here, `../../src/cli/quorate.${extension}`);
const section = '## Five nodes on one machine, step by step';
/** The ports of the documents are 7410 to 7462. */
const portTails = [1, 2, 3, 4, 5, 6].flatMap((node) => [0, 1, 2].map((port) => `${node}${port}`));

/** All lines of the section that are to be typed. */
function linesToType(): string {
  const text = readFileSync(join(root, 'docs/operations.md'), 'utf8');
  const from = text.indexOf(section);
  const end = text.indexOf('\n## ', from + section.length);
  const blocks = [...text.slice(from, end).matchAll(/```sh\n(.*?)```/gs)];
  return blocks.map(([, lines]) => lines).join('');
}

/** Two digits with which all ports are free. */
async function freePorts(): Promise<string> {
  for (let start = 20 + Math.floor(Math.random() * 10); start < 60; start++) {
    const ports = portTails.map((tail) => Number(`${start}${tail}`));
    const free = await Promise.all(ports.map(isFree));
    if (free.every(Boolean)) return String(start);
  }
  throw new Error('no free ports');
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => {
      resolve(false);
    });
    server.listen(port, '127.0.0.1', () => {
      server.close(() => {
        resolve(true);
      });
    });
  });
}

/** Its exit code; also null when a signal ended it. */
function exitOf(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => {
    child.on('exit', resolve);
  });
}

/** All that it printed has been read: not before the nodes that it left behind have ended too. */
function closed(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.on('close', () => {
      resolve();
    });
  });
}

/** Whatever became of the script, its nodes must not stay. */
function killNodes(directory: string): void {
  for (const name of readdirSync(join(directory, 'walk'))) {
    if (!name.endsWith('.pid')) continue;
    const pid = Number(readFileSync(join(directory, 'walk', name), 'utf8'));
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // Gone already: the script killed it.
    }
  }
}

describe('the steps of docs/operations.md', function () {
  this.timeout(600_000);

  it('lead from nothing to five nodes with 16 shards, two of which die, one is replaced: every record is there', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'quorate-walk-'));
    const command = [process.execPath, ...process.execArgv, quorate].join(' ');
    const script = linesToType()
      .replaceAll('node dist/src/cli/quorate.js', command)
      .replaceAll('127.0.0.1:74', `127.0.0.1:${await freePorts()}`)
      .replaceAll('test/data/', join(root, 'test/data/'));
    expect(script).to.include('--shards 16').and.to.include('kill -9');
    const env = { ...process.env, NO_COLOR: '1' };
    const child = spawn('sh', ['-e', '-c', script], { cwd: directory, env });
    let output = '';
    child.stdout.on('data', (piece: Buffer) => (output += piece.toString()));
    child.stderr.on('data', (piece: Buffer) => (output += piece.toString()));
    // Bounded: a repair that never ends would be waited for without end.
    const timer = setTimeout(() => child.kill('SIGKILL'), 540_000);
    const whole = closed(child);
    try {
      const code = await exitOf(child);
      killNodes(directory);
      await whole;
      expect(code, output.slice(-4000)).to.equal(0);
      expect(output).to.match(/1000 records loaded/);
      expect(output).to.match(/every record is there/);
    } finally {
      clearTimeout(timer);
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
