// Run with NODE_PATH's packages beside it: consumers.mjs NAME, JSON (or, for parsers, a message) on stdin, JSON on stdout.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(`${process.env.NODE_PATH}/x.js`));
const load = async (name) => import(pathToFileURL(require.resolve(name)));
const input = readFileSync(0);

const consumers = {
  // AWS's own models of events for TypeScript
  async powertools() {
    const { SesSchema } = await load('@aws-lambda-powertools/parser/schemas/ses');
    return SesSchema.parse(JSON.parse(input)).Records[0].ses;
  },
  async powertools_sns() {
    const { SnsSqsNotificationSchema } = await load('@aws-lambda-powertools/parser/schemas/sns');
    return SnsSqsNotificationSchema.parse(JSON.parse(input));
  },
  // A function behind the topic of an SNS action in base64, which keeps mail in a table
  async reapit() {
    const lambda = require('@reapit-cdk/email-receiver/dist/lambdas/lambda.js');
    await lambda.onEvent(JSON.parse(input));
    return 'kept';
  },
  async mailparser() {
    const { simpleParser } = require('mailparser');
    const mail = await simpleParser(input);
    return {
      from: mail.from.value, to: mail.to.value, subject: mail.subject, text: mail.text, html: mail.html, date: mail.date,
      attachments: mail.attachments.map((one) => [one.filename, one.contentType, one.content.toString('base64')]),
      verdict: mail.headers.get('x-ses-virus-verdict'),
    };
  },
  async postal() {
    const { default: PostalMime } = await load('postal-mime');
    const mail = await PostalMime.parse(input);
    return {
      from: [mail.from], to: mail.to, subject: mail.subject, text: mail.text, html: mail.html, date: mail.date,
      attachments: mail.attachments.map((one) => [one.filename, one.mimeType, Buffer.from(one.content).toString('base64')]),
      verdict: mail.headers.find((one) => one.key === 'x-ses-virus-verdict').value,
    };
  },
};

process.stdout.write(JSON.stringify(await consumers[process.argv[2]]()));
