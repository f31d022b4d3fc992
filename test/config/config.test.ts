import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { formatAddress, parseAddress } from '../../src/config/address.js';
import {
  ConfigInvalid,
  environmentName,
  loadConfig,
  type ConfigSources,
} from '../../src/config/config.js';

const required = {
  clusterId: 'c1',
  nodeId: '1',
  dataDirectory: '/tmp/x',
  initialCluster: '1=127.0.0.1:7401/127.0.0.1:7400',
};

const sources = (fields: Partial<ConfigSources> = {}): ConfigSources => ({
  flags: required,
  environment: {},
  file: undefined,
  ...fields,
});

function problemsOf(given: ConfigSources): readonly string[] {
  try {
    loadConfig(given);
  } catch (error) {
    if (error instanceof ConfigInvalid) return error.problems;
    throw error;
  }
  throw new Error('the configuration was accepted');
}

describe('config', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'quorate-config-'));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });
  const file = (content: string): string => {
    const path = join(folder, 'quorate.toml');
    writeFileSync(path, content);
    return path;
  };

  it('takes flags over environment over file over defaults', () => {
    const path = file('tickMs = 11\nheartbeatTicks = 3\nelectionTicks = 20\nlogLevel = "warn"\n');
    const config = loadConfig({
      file: path,
      environment: { QUORATE_TICK_MS: '12', QUORATE_HEARTBEAT_TICKS: '4' },
      flags: { ...required, tickMs: '13' },
    });
    expect(config.tickMs).to.equal(13);
    expect(config.heartbeatTicks).to.equal(4);
    expect(config.electionTicks).to.equal(20);
    expect(config.logLevel).to.equal('warn');
    expect(config.segmentMib).to.equal(64);
    expect(Object.isFrozen(config)).to.equal(true);
  });

  it('prints all five mistakes of a file at once, each with its rule and what was given', () => {
    const path = file(
      'tickMs = "soon"\nclientAddress = "nowhere"\nengine = "paper"\nleases = 3\nnoSuchOption = 1\n',
    );
    const problems = problemsOf(sources({ file: path }));
    expect(problems).to.have.length(5);
    const all = problems.join('\n');
    expect(all).to.contain(`tickMs (from ${path}): must be an integer from 5 to 1000, got "soon"`);
    expect(all)
      .to.contain('clientAddress')
      .and.contain('must be host:port')
      .and.contain('"nowhere"');
    expect(all).to.contain('engine').and.contain('rocksdb, memory');
    expect(all).to.contain('leases').and.contain('true or false');
    expect(all).to.contain(`noSuchOption (from ${path}): no such option`);
  });

  it('checks limits against one another', () => {
    const flags = { ...required, electionTicks: '6', heartbeatTicks: '5' };
    expect(problemsOf(sources({ flags })).join()).to.contain('at most half of electionTicks (6)');
  });

  it('wants this node among the first nodes', () => {
    const flags = { ...required, nodeId: '2' };
    expect(problemsOf(sources({ flags })).join()).to.contain('does not name this node');
  });

  it('names the element of the list of first nodes that it cannot read', () => {
    const flags = { ...required, initialCluster: '1=127.0.0.1:7401/127.0.0.1:7400,2=oops' };
    expect(problemsOf(sources({ flags })).join()).to.contain('"2=oops"');
  });

  it('reports a file that is not there or not TOML', () => {
    expect(problemsOf(sources({ file: join(folder, 'absent.toml') })).join()).to.contain('ENOENT');
    expect(problemsOf(sources({ file: file('a = = b') })).join()).to.contain('quorate.toml');
  });

  it('says what is missing', () => {
    const nothing = problemsOf(sources({ flags: {} })).join();
    for (const name of ['clusterId', 'dataDirectory']) expect(nothing).to.contain(name);
    const { clusterId, dataDirectory } = required;
    const alone = problemsOf(sources({ flags: { clusterId, dataDirectory } })).join();
    expect(alone).to.match(/initialCluster.*: is missing.*join/);
  });

  it('takes either first nodes or nodes to join, and no node id with the latter', () => {
    const { clusterId, dataDirectory } = required;
    const joining = { clusterId, dataDirectory, join: '10.0.0.1:7400, 10.0.0.2:7400' };
    const config = loadConfig(sources({ flags: { ...joining, labels: 'host=a,zone=b' } }));
    expect(config.join).to.deep.equal(['10.0.0.1:7400', '10.0.0.2:7400']);
    expect(config.labels).to.deep.equal(['host=a', 'zone=b']);
    const both = problemsOf(sources({ flags: { ...required, join: '10.0.0.1:7400' } })).join('\n');
    expect(both).to.match(/join.*: a node that joins has no initialCluster/);
    expect(both).to.match(/join.*: a node that joins is given its nodeId/);
    expect(problemsOf(sources({ flags: { ...joining, join: 'somewhere' } })).join()).to.match(
      /join.*: must list host:port/,
    );
    expect(problemsOf(sources({ flags: { ...joining, labels: 'host' } })).join()).to.match(
      /labels.*: must list name=value/,
    );
  });

  it('maps option names to environment variables', () => {
    expect(environmentName('dataDirectory')).to.equal('QUORATE_DATA_DIRECTORY');
  });
});

describe('address', () => {
  for (const text of ['127.0.0.1:7400', 'node-1:1', '[::1]:65535']) {
    it(`reads and writes ${text}`, () => {
      const address = parseAddress(text);
      expect(address && formatAddress(address)).to.equal(text);
    });
  }
  for (const text of ['', 'host', ':1', 'host:', 'host:65536', 'a b:1', '::1:80']) {
    it(`refuses '${text}'`, () => {
      expect(parseAddress(text)).to.equal(undefined);
    });
  }
});
