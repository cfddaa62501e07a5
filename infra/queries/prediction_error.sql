-- How good predictions were by ticker, day and horizon over the last 30 days: the mean absolute error of their prices and
-- that of persistence ("the price stays"), skill = 1 - MSE / MSE of persistence, of log returns, and the share of prices
-- within p10 and p90, which is to be 80 %. What happened is the last_price of the same ticker's row as of horizon_min later.
-- A forecast that reaches beyond the close has no such row and is left out. Of two runs that forecast the same bar, the
-- later one counts.
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY dt, ticker, as_of, horizon_min ORDER BY produced_at DESC) AS age
    FROM "${database}"."${table}"
    WHERE dt >= CAST(
        CAST(CAST(current_timestamp AT TIME ZONE 'America/New_York' AS date) - INTERVAL '30' DAY AS date) AS varchar
    )
),
kept AS (
    SELECT * FROM numbered WHERE age = 1
),
happened AS (
    SELECT dt, ticker, as_of, max_by(last_price, produced_at) AS price FROM kept GROUP BY dt, ticker, as_of
)
SELECT
    made.ticker,
    made.dt,
    made.horizon_min,
    count(*) AS predictions,
    avg(abs(made.predicted_price - happened.price)) AS mae_usd,
    avg(abs(made.last_price - happened.price)) AS mae_persistence_usd,
    1 - sum(power(made.predicted_return - ln(happened.price / made.last_price), 2))
        / nullif(sum(power(ln(happened.price / made.last_price), 2)), 0) AS skill,
    avg(
        CASE
            WHEN happened.price BETWEEN made.price_p10 AND made.price_p90 THEN 1e0
            WHEN made.price_p10 IS NOT NULL THEN 0e0
        END
    ) AS coverage
FROM kept AS made
JOIN happened
    ON happened.dt = made.dt
    AND happened.ticker = made.ticker
    AND happened.as_of = made.as_of + made.horizon_min * INTERVAL '1' MINUTE
GROUP BY made.ticker, made.dt, made.horizon_min
ORDER BY made.dt, made.ticker, made.horizon_min
