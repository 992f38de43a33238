// Says when it began, and in whose context.
const fs = require('node:fs');
const os = require('node:os');

fs.writeFileSync(`${__dirname}/began`, `${os.hostname()} colour=${process.env.COLOUR}\n`);
setInterval(() => undefined, 1000);
