// look.js NAME...: what Node makes of names, by its own resolver (c-ares) for
// each type of record, and by the C library's.
const dns = require('dns').promises;

async function main() {
  for (const name of process.argv.slice(2)) {
    const cases = /^[0-9.]+$/.test(name) ? { reverse: () => dns.reverse(name) } : {
      A: () => dns.resolve4(name), AAAA: () => dns.resolve6(name), SRV: () => dns.resolveSrv(name), TXT: () => dns.resolveTxt(name),
      CNAME: () => dns.resolveCname(name), lookup: () => dns.lookup(name, { all: true }),
    };
    for (const [what, ask] of Object.entries(cases)) {
      let text;
      try {
        text = JSON.stringify(await ask());
      } catch (e) {
        text = e.code;
      }
      if (text.length > 200) text = text.length + ' characters';
      console.log(`node ${what} ${name}: ${text}`);
    }
  }
}
main();
