import { expect } from 'chai';
import { TopologyKeeper } from '../../src/cluster/topology-cache.js';
import { noCluster, type Topology } from '../../src/meta/topology.js';
import { ManualClock } from '../support/manual-clock.js';

const at = (version: number): Topology => ({ ...noCluster, version });

class Stage {
  readonly clock = new ManualClock();
  readonly written: number[] = [];
  readonly keeper = new TopologyKeeper(this.clock, ({ version }) => this.written.push(version));
}

describe('the topology that a node keeps on its disk', () => {
  it('is written at once when nothing was written for a second', () => {
    const { clock, keeper, written } = new Stage();
    keeper.keep(at(1));
    expect(written).to.deep.equal([1]);
    clock.jump(1000);
    keeper.keep(at(2));
    expect(written).to.deep.equal([1, 2]);
  });

  it('is written once a second at most, and then the newest', () => {
    const { clock, keeper, written } = new Stage();
    for (let version = 1; version <= 40; version++) {
      keeper.keep(at(version));
      clock.jump(100);
    }
    expect(written).to.deep.equal([1, 10, 20, 30, 40]);
    clock.jump(5000);
    expect(written).to.deep.equal([1, 10, 20, 30, 40]);
    expect(clock.timersSet).to.equal(0);
  });

  it('is written before the node closes, and not after', () => {
    const { clock, keeper, written } = new Stage();
    keeper.keep(at(1));
    keeper.keep(at(2));
    keeper.keep(at(3));
    keeper.close();
    expect(written).to.deep.equal([1, 3]);
    clock.jump(5000);
    expect(written).to.deep.equal([1, 3]);
    expect(clock.timersSet).to.equal(0);
  });
});
