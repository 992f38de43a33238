const fs = require('fs');

function add(n) {
  const result = n + 1;
  return result;
}

setTimeout(() => console.log('result', add(41)), 10);
