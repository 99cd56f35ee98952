// A readable form of /openapi.json, without scripts from elsewhere.
import { $, el } from './dom.js';
import { json } from './api.js';

const name = (schema) => schema.$ref?.split('/').at(-1);

// A type in a few words: "integer 0…100", "list of DirectionEdit or NamedEdit".
function type(schema) {
  if (schema.$ref) return name(schema);
  const either = schema.anyOf ?? schema.oneOf;
  if (either) return either.filter((one) => one.type !== 'null').map(type).join(' or ');
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(' | ');
  if (schema.type === 'array') return `list of ${type(schema.items)}${bounds(schema.minItems, schema.maxItems, ' items')}`;
  if (schema.type === 'string') return `string${bounds(schema.minLength, schema.maxLength, ' characters')}`;
  const high = schema.maximum ?? (schema.exclusiveMaximum === undefined ? undefined : schema.exclusiveMaximum - 1);
  return `${schema.type ?? 'any'}${bounds(schema.minimum, high, '')}`;
}

function bounds(low, high, unit) {
  if (low === undefined && high === undefined) return '';
  return ` (${low ?? ''}…${high ?? ''}${unit})`;
}

function fields(schema) {
  const required = new Set(schema.required ?? []);
  return el('ul', {}, ...Object.entries(schema.properties ?? {}).map(([key, field]) => el('li', {},
    el('code', {}, key), `: ${type(field)}${required.has(key) ? ', required' : ''}`,
    field.default !== undefined && field.default !== null ? `, default ${JSON.stringify(field.default)}` : '',
    field.description ? `. ${field.description}` : '')));
}

function operation(path, method, about, schemas) {
  const box = el('section', { className: 'operation' },
    el('h3', {}, el('span', { className: 'method' }, method.toUpperCase()), ` ${path}`),
    el('p', {}, about.description ?? about.summary));
  for (const parameter of about.parameters ?? []) {
    box.append(el('p', {}, el('code', {}, parameter.name), `: ${type(parameter.schema)}. ${parameter.schema.description ?? ''}`));
  }
  const body = about.requestBody?.content['application/json']?.schema;
  if (body) box.append(el('p', {}, `Body: ${type(body)}`), fields(schemas[name(body)] ?? {}));
  const kinds = Object.entries(about.responses).filter(([status]) => status.startsWith('2')).map(([status, answer]) => {
    const content = Object.entries(answer.content ?? {}).map(([media, one]) => (media === 'application/json' ? type(one.schema) : media));
    return `${status} ${content.join(', ') || 'nothing'}`;
  });
  box.append(el('p', {}, `Answers: ${kinds.join('; ')}; failures ${Object.keys(about.responses).filter((s) => s >= '4').join(', ')}`));
  return box;
}

try {
  const api = await json('GET', '/openapi.json');
  const { schemas } = api.components;
  const operations = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods)
    .map(([method, about]) => operation(path, method, about, schemas)));
  const used = ['DirectionEdit', 'NamedEdit', 'DirectionTarget', 'NamedTarget', 'FailureBody', 'Failure'];
  const types = used.filter((key) => schemas[key]).map((key) => el('section', { className: 'operation' },
    el('h3', {}, key), el('p', {}, schemas[key].description ?? ''), fields(schemas[key])));
  $('docs').replaceChildren(el('h2', {}, 'Operations'), el('p', {}, api.info.description), ...operations, el('h2', {}, 'Types'), ...types);
} catch (error) {
  $('docs').textContent = error.status === 401 ? 'A token is needed: open the studio first.' : error.message;
}
