// Runs npm's aws-lambda-ses-forwarder, unmodified, on the event on stdin: forwarder.js BUCKET PREFIX S3_URL SES_URL.
const { handler } = require('aws-lambda-ses-forwarder');
const { S3Client } = require('@aws-sdk/client-s3');
const { SESv2Client } = require('@aws-sdk/client-sesv2');

const [bucket, prefix, s3Url, sesUrl] = process.argv.slice(2);
console.log = console.error; // stdout is for the answer
let text = '';
process.stdin.on('data', (chunk) => { text += chunk; });
process.stdin.on('end', () => {
  const answer = (error) => {
    process.stdout.write(JSON.stringify(error ? { errorMessage: error.message } : null));
    process.exitCode = error ? 1 : 0;
  };
  handler(JSON.parse(text), {}, answer, {
    log: (line) => console.error(line.message, line.error || ''),
    config: {
      fromEmail: 'noreply@example.com', subjectPrefix: '[fwd] ', emailBucket: bucket, emailKeyPrefix: prefix,
      allowPlusSign: true, forwardMapping: { 'support@example.com': ['pat@elsewhere.example'] },
    },
    s3: new S3Client({ endpoint: s3Url, forcePathStyle: true, region: 'us-east-1' }),
    ses: new SESv2Client({ endpoint: sesUrl, region: 'us-east-1' }),
  });
});
