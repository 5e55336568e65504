import json, time, os, torch, traceback
from kinetograph.tests.host import patch_bench
from kinetograph.tests.host.test_patch_nodes import *
def test_gen(nodes, stages, version):
    out={}
    log=open(f"/work/tmp/pt/gen-{version}.txt","w")
    for fam in FAMILIES:
        st=stages[fam]
        for name,kind in nodes.items():
            if os.environ.get("ONLY") and name not in os.environ["ONLY"].split(","): continue
            t=time.process_time()
            ran={}
            old=st.ran
            def ran_(n,k,m):
                r=old(n,k,m); ran["ours" if m is st.pair.ours else "theirs"]=(round(r.moved,6), r.calls, (type(r.error).__name__+" "+str(r.error)[:150]+" @"+traceback.extract_tb(r.error.__traceback__)[-1].name) if r.error else None); return r
            st.ran=ran_
            try: o=st.outcome(name,kind)
            except AssertionError as e: o="ASSERT "+str(e)[:300]
            st.ran=old
            out.setdefault(name,{})[fam]=o
            print(f"{fam} {name:30} {o[:120]:20} {ran} {time.process_time()-t:.2f}",file=log,flush=True)
        for m in (st.pair.ours, st.pair.theirs):
            if m is not None: print("unharmed", torch.equal(st.without(m,{}), st.pair.sample(m)),file=log,flush=True)
    json.dump(out,open(f"/work/tmp/pt/gen-{version}.json","w"),indent=1)
